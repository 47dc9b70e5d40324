def merge_counts(a, b):
    result = dict(a)
    for key in b:
        result[key] = result.get(key, 0) + b[key]
    return result


def keys_in_range(table, low, high):
    result = []
    for key in sorted(table):
        if table[key] >= low and table[key] <= high:
            result.append(key)
    return result


def items_in_only_one(xs, ys):
    result = []
    for x in xs + ys:
        if not (x in xs and x in ys):
            result.append(x)
    return result


def group_by_length(words):
    result = {}
    for word in words:
        n = len(word)
        result[n] = result.get(n, []) + [word]
    return result


def key_of_largest(table):
    best = None
    for key in sorted(table):
        if best is None or table[key] > table[best]:
            best = key
    return best


def similarity_percent(a, b):
    count = len(a & b)
    total = len(a | b)
    if total == 0:
        return 100
    return count * 100 // total


def can_spell(word, letters):
    for c in word:
        if word.count(c) > letters.count(c):
            return False
    return True


def reduce_stock(table, key, n):
    if table.get(key, 0) < n:
        return None
    result = dict(table)
    result[key] = table[key] - n
    return result


CASES = {
    "merge_counts": [
        (({"a": 1}, {"a": 2}), {"a": 3}), (({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (({}, {"c": 5}), {"c": 5}), (({"x": 4}, {}), {"x": 4}), (({}, {}), {}),
        (({"a": 1, "b": 1}, {"b": 3}), {"a": 1, "b": 4}), (({"a": 2}, {"a": -2}), {"a": 0}),
        (({"a": 0}, {"b": 0}), {"a": 0, "b": 0}),
    ],
    "keys_in_range": [
        (({"a": 1, "b": 3}, 2, 4), ["b"]), (({"a": 2, "b": 5}, 2, 4), ["a"]),
        (({"b": 4, "a": 3}, 1, 4), ["a", "b"]), (({}, 0, 9), []), (({"x": 0}, -1, 1), ["x"]),
        (({"x": 6}, 2, 5), []), (({"x": 1}, 2, 5), []), (({"x": 7}, 7, 7), ["x"]),
        (({"c": 9, "b": 1, "a": 8}, 5, 9), ["a", "c"]),
    ],
    "items_in_only_one": [
        (([1, 2], [2, 3]), [1, 3]), (([1], []), [1]), (([], [4]), [4]), (([5], [5]), []),
        (([], []), []), (([1, 2, 3], [2]), [1, 3]), (([7], [8]), [7, 8]), (([0, 1], [1, 0]), []),
    ],
    "group_by_length": [
        ((["a", "b", "cd"],), {1: ["a", "b"], 2: ["cd"]}), (([],), {}), ((["hi"],), {2: ["hi"]}),
        ((["", "x"],), {0: [""], 1: ["x"]}), ((["one", "two"],), {3: ["one", "two"]}),
        ((["ab", "c", "de"],), {2: ["ab", "de"], 1: ["c"]}), ((["a", "a"],), {1: ["a", "a"]}),
        ((["abcd"],), {4: ["abcd"]}),
    ],
    "key_of_largest": [
        (({"a": 1, "b": 3},), "b"), (({},), None), (({"a": 2, "b": 2},), "a"),
        (({"a": 5, "b": 1},), "a"), (({"z": 0},), "z"), (({"b": 4, "a": 4},), "a"),
        (({"x": -2, "y": -1},), "y"), (({"a": 1, "b": 9, "c": 4},), "b"),
    ],
    "similarity_percent": [
        (({1, 2}, {2, 3}), 33), (({1, 2}, {1, 2}), 100), ((set(), set()), 100), (({1}, {2}), 0),
        (({1}, {1, 2}), 50), (({1, 2, 3, 4}, {1}), 25), (({5}, {5}), 100),
        (({1, 2, 3}, {2, 3}), 66),
    ],
    "can_spell": [
        (("cab", "abc"), True), (("bee", "bed"), False), (("", "a"), True), (("x", ""), False),
        (("a", "aab"), True), (("aa", "aba"), True), (("dog", "do"), False),
        (("go", "goo"), True), (("abb", "ab"), False),
    ],
    "reduce_stock": [
        (({"a": 5}, "a", 2), {"a": 3}), (({"a": 1}, "a", 2), None),
        (({"a": 2}, "a", 2), {"a": 0}), (({"a": 4}, "b", 1), None), (({}, "x", 1), None),
        (({"a": 1, "b": 7}, "b", 3), {"a": 1, "b": 4}), (({"a": 3}, "a", 0), {"a": 3}),
        (({"a": 9}, "a", 8), {"a": 1}),
    ],
}
