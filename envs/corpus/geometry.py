def manhattan_distance(a, b):
    x = abs(a[0] - b[0])
    y = abs(a[1] - b[1])
    return x + y


def is_inside_circle(a, center, r):
    x = a[0] - center[0]
    y = a[1] - center[1]
    return x * x + y * y <= r * r


def is_right_triangle(a, b, c):
    a, b, c = sorted([a, b, c])
    return a * a + b * b == c * c


def triangle_kind(a, b, c):
    if a == b and b == c:
        return "equilateral"
    if a == b or b == c or a == c:
        return "isosceles"
    return "scalene"


def box_area(box):
    width = box[2] - box[0]
    height = box[3] - box[1]
    return max(width, 0) * max(height, 0)


def boxes_overlap(a, b):
    if a[2] <= b[0] or b[2] <= a[0]:
        return False
    return a[1] < b[3] and b[1] < a[3]


def turn_direction(a, b, c):
    x = (b[0] - a[0]) * (c[1] - a[1])
    y = (b[1] - a[1]) * (c[0] - a[0])
    if x == y:
        return "straight"
    return "left" if x > y else "right"


def quadrant(x, y):
    if x == 0 or y == 0:
        return 0
    if y > 0:
        return 1 if x > 0 else 2
    return 3 if x < 0 else 4


CASES = {
    "manhattan_distance": [
        (((1, 2), (4, 6)), 7), (((0, 0), (0, 0)), 0), (((5, 1), (2, 3)), 5),
        (((0, 3), (0, -1)), 4), (((-1, -1), (1, 1)), 4), (((2, 0), (0, 0)), 2),
        (((3, 9), (4, 9)), 1), (((7, 7), (1, 2)), 11),
    ],
    "is_inside_circle": [
        (((3, 4), (0, 0), 5), True), (((4, 4), (0, 0), 5), False), (((2, 7), (2, 3), 4), True),
        (((2, 8), (2, 3), 4), False), (((1, 2), (0, 0), 3), True), (((9, 1), (2, 1), 6), False),
        (((0, 0), (0, 0), 0), True), (((-3, 0), (1, 0), 4), True), (((1, 1), (0, 0), 1), False),
        (((5, 9), (5, 4), 5), True),
    ],
    "is_right_triangle": [
        ((3, 4, 5), True), ((5, 3, 4), True), ((2, 3, 4), False), ((6, 8, 10), True),
        ((1, 1, 1), False), ((12, 13, 5), True), ((1, 2, 3), False), ((8, 17, 15), True),
        ((4, 4, 5), False),
    ],
    "triangle_kind": [
        ((2, 2, 2), "equilateral"), ((2, 2, 3), "isosceles"), ((3, 4, 5), "scalene"),
        ((3, 2, 2), "isosceles"), ((2, 3, 2), "isosceles"), ((4, 5, 6), "scalene"),
        ((1, 1, 1), "equilateral"), ((5, 5, 8), "isosceles"),
    ],
    "box_area": [
        (((0, 0, 3, 2),), 6), (((1, 2, 4, 7),), 15), (((3, 0, 1, 2),), 0), (((0, 5, 2, 1),), 0),
        (((1, 1, 1, 9),), 0), (((-1, -1, 1, 1),), 4), (((2, 3, 3, 4),), 1), (((5, 5, 1, 1),), 0),
        (((0, 4, 6, 4),), 0),
    ],
    "boxes_overlap": [
        (((0, 0, 2, 2), (2, 0, 4, 2)), False), (((0, 0, 2, 2), (0, 2, 2, 4)), False),
        (((0, 2, 2, 4), (0, 0, 2, 2)), False), (((1, 3, 4, 5), (0, 1, 2, 4)), True),
        (((0, 0, 2, 2), (1, 1, 3, 3)), True), (((1, 1, 2, 2), (0, 0, 9, 9)), True),
        (((2, 0, 4, 2), (0, 0, 2, 2)), False), (((0, 0, 1, 1), (5, 5, 6, 6)), False),
        (((0, 0, 3, 3), (2, 2, 4, 4)), True), (((3, 1, 5, 3), (1, 2, 4, 6)), True),
    ],
    "turn_direction": [
        (((0, 0), (1, 0), (1, 1)), "left"), (((0, 0), (1, 0), (1, -1)), "right"),
        (((1, 1), (3, 2), (5, 3)), "straight"), (((1, 0), (2, 3), (3, 6)), "straight"),
        (((0, 0), (1, 1), (2, 2)), "straight"), (((1, 2), (3, 3), (4, 6)), "left"),
        (((2, 1), (2, 4), (5, 4)), "right"), (((0, 0), (0, 1), (-1, 1)), "left"),
        (((3, 1), (1, 2), (2, 4)), "right"), (((5, 5), (5, 5), (5, 5)), "straight"),
    ],
    "quadrant": [
        ((-2, 3), 2), ((-1, -1), 3), ((0, 5), 0), ((1, 1), 1), ((2, 3), 1), ((4, -5), 4),
        ((5, 0), 0), ((-1, 1), 2), ((1, -1), 4), ((0, 0), 0),
    ],
}
