def count_items(xs):
    result = {}
    for x in xs:
        result[x] = result.get(x, 0) + 1
    return result


def count_inversions(xs):
    count = 0
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] > xs[j]:
                count += 1
    return count


def most_common(xs):
    best = None
    for x in xs:
        if best is None or xs.count(x) > xs.count(best):
            best = x
    return best


def has_majority(xs, x):
    count = xs.count(x)
    return count * 2 > len(xs)


def ways_to_climb_by_three(n):
    a, b, c = 1, 1, 2
    for _ in range(n):
        a, b, c = b, c, a + b + c
    return a


def binomial(n, k):
    result = 1
    for i in range(k):
        result = result * (n - i) // (i + 1)
    return result


def count_sign_changes(xs):
    count = 0
    for i in range(1, len(xs)):
        if xs[i] * xs[i - 1] < 0:
            count += 1
    return count


def count_multiples_of_either(n, a, b):
    count = 0
    for i in range(1, n + 1):
        if i % a == 0 or i % b == 0:
            count += 1
    return count


CASES = {
    "count_items": [
        (([1, 2, 1],), {1: 2, 2: 1}), (([],), {}), ((["a", "a"],), {"a": 2}), (([5],), {5: 1}),
        (([0, 0, 0],), {0: 3}), (([1, 2, 3],), {1: 1, 2: 1, 3: 1}),
        (("abca",), {"a": 2, "b": 1, "c": 1}), (([3, 3, 4, 4],), {3: 2, 4: 2}),
    ],
    "count_inversions": [
        (([3, 1, 2],), 2), (([1, 2, 3],), 0), (([2, 2],), 0), (([3, 2, 1],), 3), (([],), 0),
        (([5],), 0), (([2, 1],), 1), (([1, 3, 2, 4],), 1), (([4, 1, 1],), 2),
    ],
    "most_common": [
        (([1, 2, 2],), 2), (([],), None), (([3, 4],), 3), (([5, 1, 5],), 5), (([7],), 7),
        (([1, 1, 2, 2],), 1), ((["a", "b", "b"],), "b"), (([0, 9, 0, 9, 9],), 9),
    ],
    "has_majority": [
        (([1, 1, 2], 1), True), (([1, 2], 1), False), (([], 5), False),
        (([3, 3, 4, 4, 3], 3), True), (([1, 1, 2], 2), False), (([7], 7), True),
        (([1, 1, 2, 3], 1), False), (([4, 4], 4), True), (([1, 2, 3], 9), False),
    ],
    "ways_to_climb_by_three": [
        ((0,), 1), ((3,), 4), ((4,), 7), ((2,), 2), ((1,), 1), ((5,), 13), ((6,), 24), ((7,), 44),
    ],
    "binomial": [
        ((4, 2), 6), ((5, 1), 5), ((3, 0), 1), ((5, 3), 10), ((2, 3), 0), ((3, 3), 1),
        ((0, 0), 1), ((6, 2), 15),
    ],
    "count_sign_changes": [
        (([1, -1, 2],), 2), (([1, 2],), 0), (([0, -1],), 0), (([-3, -1, 4],), 1), (([],), 0),
        (([5],), 0), (([1, 0, -1],), 0), (([2, -2],), 1), (([-1, 1, -1, 1],), 3),
    ],
    "count_multiples_of_either": [
        ((10, 2, 3), 7), ((6, 6, 4), 2), ((5, 7, 5), 1), ((1, 1, 2), 1), ((0, 2, 3), 0),
        ((12, 3, 4), 6), ((4, 5, 6), 0), ((3, 3, 3), 1), ((7, 7, 2), 4),
    ],
}
