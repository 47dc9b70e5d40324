def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def is_increasing(xs):
    for i in range(1, len(xs)):
        if xs[i] <= xs[i - 1]:
            return False
    return True


def longest_increasing_run(xs):
    best, count = 0, 0
    for i in range(len(xs)):
        if i > 0 and xs[i] <= xs[i - 1]:
            count = 0
        count += 1
        best = max(best, count)
    return best


def best_streak_sum(xs):
    best, total = 0, 0
    for x in xs:
        total = max(total + x, 0)
        best = max(best, total)
    return best


def alternating_sum(xs):
    total = 0
    for i in range(len(xs)):
        if i % 2 == 0:
            total += xs[i]
        else:
            total -= xs[i]
    return total


def next_pascal_row(row):
    result = [1]
    for i in range(1, len(row)):
        result.append(row[i - 1] + row[i])
    return result + [1]


def is_arithmetic(xs):
    for i in range(2, len(xs)):
        if xs[i] - xs[i - 1] != xs[1] - xs[0]:
            return False
    return True


def window_sums(xs, n):
    result = []
    for i in range(len(xs) - n + 1):
        result.append(sum(xs[i:i + n]))
    return result


CASES = {
    "fibonacci": [
        ((0,), 0), ((1,), 1), ((5,), 5), ((2,), 1), ((7,), 13), ((3,), 2), ((4,), 3), ((10,), 55),
    ],
    "is_increasing": [
        (([1, 2, 5],), True), (([1, 3, 2],), False), (([2, 2],), False), (([3, 1, 2],), False),
        (([],), True), (([4],), True), (([1, 2, 2],), False), (([0, 1],), True),
        (([-3, -2, 0],), True),
    ],
    "longest_increasing_run": [
        (([1, 2, 0, 3, 4],), 3), (([],), 0), (([2, 2],), 1), (([1, 5, 2],), 2), (([5, 4, 3],), 1),
        (([7],), 1), (([1, 2, 3],), 3), (([0, 0, 1],), 2), (([3, 4, 5, 1, 2],), 3),
    ],
    "best_streak_sum": [
        (([1, -2, 3, 4],), 7), (([],), 0), (([-1, -2],), 0), (([1, 2, -9],), 3),
        (([5, -1, 2],), 6), (([3],), 3), (([2, -3, 2],), 2), (([4, -4, 4],), 4), (([0],), 0),
    ],
    "alternating_sum": [
        (([5, 2, 1],), 4), (([],), 0), (([3],), 3), (([1, 4],), -3), (([1, 1, 1, 1],), 0),
        (([0, 7],), -7), (([9, 1, 2, 3, 4],), 11), (([-1, -1, 5],), 5),
    ],
    "next_pascal_row": [
        (([1],), [1, 1]), (([1, 1],), [1, 2, 1]), (([1, 2, 1],), [1, 3, 3, 1]),
        (([1, 3, 3, 1],), [1, 4, 6, 4, 1]), (([],), [1, 1]),
        (([1, 4, 6, 4, 1],), [1, 5, 10, 10, 5, 1]), (([2, 5],), [1, 7, 1]),
        (([0, 0, 4],), [1, 0, 4, 1]),
    ],
    "is_arithmetic": [
        (([1, 3, 5],), True), (([1, 2, 4],), False), (([7],), True), (([5, 3, 1, -1],), True),
        (([],), True), (([1, 9],), True), (([2, 2, 2],), True), (([1, 2, 3, 5],), False),
        (([0, 1, 0],), False), (([2, 4, 8],), False),
    ],
    "window_sums": [
        (([1, 2, 3], 2), [3, 5]), (([4, 5], 1), [4, 5]), (([1, 2], 3), []), (([1, 2, 3], 3), [6]),
        (([], 1), []), (([1, 1, 1, 1], 2), [2, 2, 2]), (([5], 1), [5]),
        (([2, 0, 1, 4], 3), [3, 5]),
    ],
}
