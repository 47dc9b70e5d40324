def count_vowels(s):
    count = 0
    for c in s.lower():
        if c in "aeiou":
            count += 1
    return count


def is_palindrome(s):
    for i in range(len(s) // 2):
        if s[i] != s[-1 - i]:
            return False
    return True


def shift_letters(s, n):
    result = ""
    for c in s:
        i = (ord(c) - ord("a") + n) % 26
        result += chr(i + ord("a"))
    return result


def common_prefix_length(a, b):
    i = 0
    n = min(len(a), len(b))
    while i < n and a[i] == b[i]:
        i += 1
    return i


def count_mismatches(a, b):
    count = abs(len(a) - len(b))
    for i in range(min(len(a), len(b))):
        if a[i] != b[i]:
            count += 1
    return count


def compress_runs(s):
    result, count = "", 0
    for i in range(len(s)):
        count += 1
        if i + 1 == len(s) or s[i] != s[i + 1]:
            result += s[i] + str(count)
            count = 0
    return result


def longest_run(s):
    best = 0
    for i in range(len(s)):
        if i == 0 or s[i] != s[i - 1]:
            count = 0
        count += 1
        best = max(best, count)
    return best


def alternate_case(s):
    result = ""
    for i in range(len(s)):
        if i % 2 == 0:
            result += s[i].upper()
        else:
            result += s[i].lower()
    return result


CASES = {
    "count_vowels": [
        (("hello",), 2), (("",), 0), (("xyz",), 0), (("AbE",), 2), (("a",), 1), (("aeiou",), 5),
        (("b",), 0), (("a b c d e",), 2),
    ],
    "is_palindrome": [
        (("level",), True), (("abca",), False), (("",), True), (("ab",), False), (("a",), True),
        (("noon",), True), (("abcdba",), False), (("aab",), False), (("abb",), False),
    ],
    "shift_letters": [
        (("abc", 1), "bcd"), (("xyz", 3), "abc"), (("", 5), ""), (("b", -1), "a"),
        (("a", 0), "a"), (("a", 25), "z"), (("az", 26), "az"), (("dog", 2), "fqi"),
    ],
    "common_prefix_length": [
        (("abc", "abd"), 2), (("ab", "abc"), 2), (("a", ""), 0), (("aba", "aca"), 1),
        (("x", "y"), 0), (("", "a"), 0), (("abc", "ab"), 2), (("same", "same"), 4),
    ],
    "count_mismatches": [
        (("abc", "abd"), 1), (("ab", "abcd"), 2), (("", ""), 0), (("abc", "a"), 2),
        (("xy", "ab"), 2), (("same", "same"), 0), (("", "abc"), 3), (("ba", "bcd"), 2),
    ],
    "compress_runs": [
        (("aaab",), "a3b1"), (("",), ""), (("a",), "a1"), (("abb",), "a1b2"),
        (("aba",), "a1b1a1"), (("zz",), "z2"), (("ab",), "a1b1"), (("xxyyyx",), "x2y3x1"),
    ],
    "longest_run": [
        (("aabbb",), 3), (("",), 0), (("a",), 1), (("abba",), 2), (("abab",), 1), (("aaab",), 3),
        (("aa",), 2), (("aabaa",), 2),
    ],
    "alternate_case": [
        (("hello",), "HeLlO"), (("",), ""), (("AB",), "Ab"), (("a",), "A"), (("abc",), "AbC"),
        (("XYZ",), "XyZ"), (("a1b2",), "A1B2"), (("no",), "No"),
    ],
}
