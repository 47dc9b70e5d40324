def running_totals(xs):
    total = 0
    result = []
    for x in xs:
        total += x
        result.append(total)
    return result


def second_largest(xs):
    ys = sorted(set(xs))
    if len(ys) < 2:
        return None
    return ys[-2]


def split_into_chunks(xs, n):
    result = []
    for i in range(0, len(xs), n):
        result.append(xs[i:i + n])
    return result


def rotate_left(xs, n):
    if not xs:
        return []
    i = n % len(xs)
    return xs[i:] + xs[:i]


def pairwise_differences(xs):
    result = []
    for i in range(1, len(xs)):
        result.append(xs[i] - xs[i - 1])
    return result


def drop_repeated_neighbors(xs):
    result = []
    for x in xs:
        if not result or x != result[-1]:
            result.append(x)
    return result


def interleave(xs, ys):
    result = []
    n = min(len(xs), len(ys))
    for i in range(n):
        result += [xs[i], ys[i]]
    return result + xs[n:] + ys[n:]


def move_zeros_to_end(xs):
    result = [x for x in xs if x != 0]
    count = len(xs) - len(result)
    return result + [0] * count


CASES = {
    "running_totals": [
        (([1, 2, 3],), [1, 3, 6]), (([],), []), (([5],), [5]), (([2, -2, 4],), [2, 0, 4]),
        (([0, 0],), [0, 0]), (([-1, -1],), [-1, -2]), (([1, 1, 1, 1],), [1, 2, 3, 4]),
        (([10, 20],), [10, 30]),
    ],
    "second_largest": [
        (([3, 1, 2],), 2), (([5],), None), (([4, 4],), None), (([1, 9],), 1), (([],), None),
        (([7, 7, 6],), 6), (([-1, -2, -3],), -2), (([8, 2, 8, 5],), 5), (([0, 1],), 0),
    ],
    "split_into_chunks": [
        (([1, 2, 3, 4], 2), [[1, 2], [3, 4]]), (([1, 2, 3], 2), [[1, 2], [3]]), (([], 3), []),
        (([5], 1), [[5]]), (([1, 2], 5), [[1, 2]]), (([1, 2, 3], 1), [[1], [2], [3]]),
        (([7, 8, 9], 3), [[7, 8, 9]]), (([1, 2, 3, 4], 3), [[1, 2, 3], [4]]),
    ],
    "rotate_left": [
        (([1, 2, 3], 1), [2, 3, 1]), (([1, 2, 3], 0), [1, 2, 3]), (([], 2), []),
        (([1, 2, 3], 5), [3, 1, 2]), (([4], 3), [4]), (([1, 2, 3], 3), [1, 2, 3]),
        (([1, 2, 3, 4], -1), [4, 1, 2, 3]), (([5, 6], 1), [6, 5]),
    ],
    "pairwise_differences": [
        (([1, 4, 9],), [3, 5]), (([5],), []), (([],), []), (([5, 2],), [-3]),
        (([2, 2, 2],), [0, 0]), (([0, 1],), [1]), (([-1, 1, -1],), [2, -2]),
        (([10, 7, 5, 4],), [-3, -2, -1]),
    ],
    "drop_repeated_neighbors": [
        (([1, 1, 2],), [1, 2]), (([1, 2, 1],), [1, 2, 1]), (([],), []), (([3, 3, 3],), [3]),
        (([5],), [5]), (([0, 0, 1, 0],), [0, 1, 0]), (([2, 1, 1, 2, 2],), [2, 1, 2]),
        ((["a", "a"],), ["a"]),
    ],
    "interleave": [
        (([1, 2], [3, 4]), [1, 3, 2, 4]), (([1], [5, 6]), [1, 5, 6]), (([], [1]), [1]),
        (([7, 8, 9], [0]), [7, 0, 8, 9]), (([], []), []), (([1], []), [1]),
        (([1, 1], [2, 2]), [1, 2, 1, 2]), ((["a"], ["b"]), ["a", "b"]),
    ],
    "move_zeros_to_end": [
        (([0, 1, 2],), [1, 2, 0]), (([3, 0, 0, 4],), [3, 4, 0, 0]), (([],), []),
        (([1, 2],), [1, 2]), (([0],), [0]), (([0, 0],), [0, 0]), (([5],), [5]),
        (([-1, 0, 1],), [-1, 1, 0]),
    ],
}
