def intersection(a, b):
    low = max(a[0], b[0])
    high = min(a[1], b[1])
    if low > high:
        return None
    return (low, high)


def contains_interval(a, b):
    if b[0] < a[0]:
        return False
    return b[1] <= a[1]


def gap_between(a, b):
    if a[1] < b[0]:
        return b[0] - a[1]
    if b[1] < a[0]:
        return a[0] - b[1]
    return 0


def merge_intervals(xs):
    result = []
    for low, high in sorted(xs):
        if result and low <= result[-1][1]:
            low, last = result.pop()
            high = max(high, last)
        result.append((low, high))
    return result


def total_covered(xs):
    total, last = 0, 0
    for low, high in sorted(xs):
        low = max(low, last)
        if high > low:
            total += high - low
            last = high
    return total


def count_covering(xs, x):
    count = 0
    for low, high in xs:
        if low <= x and x < high:
            count += 1
    return count


def free_gaps(xs):
    result = []
    for i in range(1, len(xs)):
        if xs[i - 1][1] < xs[i][0]:
            result.append((xs[i - 1][1], xs[i][0]))
    return result


def split_interval(low, high, x):
    if x <= low or x >= high:
        return [(low, high)]
    return [(low, x), (x, high)]


CASES = {
    "intersection": [
        (((1, 5), (3, 8)), (3, 5)), (((1, 2), (4, 6)), None), (((1, 3), (3, 4)), (3, 3)),
        (((5, 7), (1, 2)), None), (((4, 6), (1, 9)), (4, 6)), (((0, 9), (2, 3)), (2, 3)),
        (((2, 2), (2, 2)), (2, 2)), (((0, 1), (2, 3)), None),
    ],
    "contains_interval": [
        (((1, 5), (2, 4)), True), (((1, 5), (0, 3)), False), (((1, 5), (3, 6)), False),
        (((1, 5), (1, 5)), True), (((2, 3), (1, 4)), False), (((0, 9), (0, 1)), True),
        (((0, 9), (9, 9)), True), (((4, 6), (7, 8)), False), (((1, 1), (1, 2)), False),
    ],
    "gap_between": [
        (((1, 2), (5, 6)), 3), (((5, 6), (1, 2)), 3), (((1, 4), (3, 6)), 0),
        (((1, 9), (2, 3)), 0), (((1, 3), (3, 5)), 0), (((0, 1), (2, 9)), 1),
        (((3, 5), (1, 3)), 0), (((7, 8), (0, 6)), 1), (((-5, -4), (4, 5)), 8),
    ],
    "merge_intervals": [
        (([(1, 3), (2, 5)],), [(1, 5)]), (([(1, 2), (4, 5)],), [(1, 2), (4, 5)]),
        (([(4, 6), (1, 4)],), [(1, 6)]), (([(1, 9), (2, 3)],), [(1, 9)]), (([],), []),
        (([(5, 6)],), [(5, 6)]), (([(1, 2), (3, 4)],), [(1, 2), (3, 4)]),
        (([(1, 3), (5, 7), (2, 6)],), [(1, 7)]), (([(0, 1), (0, 1)],), [(0, 1)]),
    ],
    "total_covered": [
        (([(1, 3), (2, 5)],), 4), (([(1, 2), (4, 6)],), 3), (([(1, 9), (2, 3)],), 8),
        (([(0, 5)],), 5), (([],), 0), (([(3, 4), (1, 2)],), 2), (([(1, 9), (2, 3), (5, 10)],), 9),
        (([(2, 2)],), 0), (([(0, 1), (1, 2)],), 2),
    ],
    "count_covering": [
        (([(1, 4), (2, 3)], 2), 2), (([(1, 4)], 4), 0), (([(1, 4)], 1), 1), (([(5, 6)], 3), 0),
        (([], 1), 0), (([(1, 4)], 3), 1), (([(1, 4)], 0), 0), (([(0, 9), (8, 9), (9, 10)], 9), 1),
        (([(2, 2)], 2), 0),
    ],
    "free_gaps": [
        (([(1, 2), (4, 5)],), [(2, 4)]), (([(1, 3), (3, 5)],), []),
        (([(0, 1), (2, 3), (6, 7)],), [(1, 2), (3, 6)]), (([(1, 5), (2, 6)],), []), (([],), []),
        (([(1, 2)],), []), (([(1, 2), (2, 3), (5, 6)],), [(3, 5)]),
        (([(0, 4), (5, 6)],), [(4, 5)]),
    ],
    "split_interval": [
        ((1, 5, 3), [(1, 3), (3, 5)]), ((1, 5, 0), [(1, 5)]), ((1, 5, 5), [(1, 5)]),
        ((1, 5, 1), [(1, 5)]), ((1, 5, 7), [(1, 5)]), ((0, 2, 1), [(0, 1), (1, 2)]),
        ((-4, 4, 0), [(-4, 0), (0, 4)]), ((2, 2, 2), [(2, 2)]), ((1, 5, 4), [(1, 4), (4, 5)]),
    ],
}
