def insert_position(xs, x):
    i = 0
    while i < len(xs) and xs[i] < x:
        i += 1
    return i


def integer_square_root(n):
    x = 0
    while (x + 1) * (x + 1) <= n:
        x += 1
    return x


def find_last_index(xs, x):
    for i in range(len(xs) - 1, -1, -1):
        if xs[i] == x:
            return i
    return -1


def index_of_largest(xs):
    best = 0
    for i in range(1, len(xs)):
        if xs[i] > xs[best]:
            best = i
    return best


def smallest_missing_positive(xs):
    n = 1
    while n in xs:
        n += 1
    return n


def first_peak_index(xs):
    for i in range(1, len(xs) - 1):
        if xs[i - 1] < xs[i] and xs[i] > xs[i + 1]:
            return i
    return -1


def has_pair_with_sum(xs, total):
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] + xs[j] == total:
                return True
    return False


def closest_value(xs, x):
    best = xs[0]
    for y in xs:
        if abs(y - x) < abs(best - x):
            best = y
    return best


CASES = {
    "insert_position": [
        (([1, 3, 5], 4), 2), (([1, 3, 5], 3), 1), (([], 7), 0), (([1, 3], 9), 2),
        (([1, 3], 0), 0), (([2, 2, 2], 2), 0), (([2, 2], 3), 2), (([4], 4), 0),
        (([0, 1, 2], 2), 2),
    ],
    "integer_square_root": [
        ((16,), 4), ((15,), 3), ((0,), 0), ((1,), 1), ((2,), 1), ((3,), 1), ((4,), 2), ((24,), 4),
        ((25,), 5), ((30,), 5),
    ],
    "find_last_index": [
        (([1, 2, 1], 1), 2), (([1, 2, 3], 4), -1), (([5, 6], 5), 0), (([], 1), -1), (([7], 7), 0),
        (([3, 3, 3, 0], 3), 2), (([0, 1], 1), 1), (([1, 2, 1, 4], 2), 1),
    ],
    "index_of_largest": [
        (([1, 5, 3],), 1), (([7, 7],), 0), (([2],), 0), (([1, 2, 3],), 2), (([9, 1, 9],), 0),
        (([-3, -1, -2],), 1), (([0, 4, 4],), 1), (([5, 0],), 0),
    ],
    "smallest_missing_positive": [
        (([1, 2, 4],), 3), (([],), 1), (([2, 3],), 1), (([1],), 2), (([0, -1],), 1),
        (([3, 2, 1],), 4), (([1, 1],), 2), (([5, 1],), 2),
    ],
    "first_peak_index": [
        (([1, 3, 2],), 1), (([1, 2, 3],), -1), (([3, 2, 1],), -1), (([1, 1, 0],), -1),
        (([5, 1, 2, 0],), 2), (([],), -1), (([0, 4, 4],), -1), (([1, 2, 1, 5, 1],), 1),
        (([9, 8, 9],), -1), (([1, 5],), -1),
    ],
    "has_pair_with_sum": [
        (([1, 2, 3], 5), True), (([1, 2, 3], 2), False), (([4], 8), False), (([5, 5], 10), True),
        (([], 0), False), (([1, 2], 7), False), (([-1, 4, 1], 0), True), (([3, 9, 2], 5), True),
        (([3, 1], 6), False),
    ],
    "closest_value": [
        (([1, 5, 9], 6), 5), (([2, 4], 3), 2), (([7], 0), 7), (([1, 8], 7), 8), (([4, 2], 3), 4),
        (([-5, 5], -1), -5), (([0, 10, 3], 3), 3), (([6, 1, 2], 1), 1),
    ],
}
