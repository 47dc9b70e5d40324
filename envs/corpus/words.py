def longest_word_up_to(words, n):
    best = ""
    for word in words:
        if len(word) <= n and len(word) > len(best):
            best = word
    return best


def count_long_words(s, n):
    count = 0
    for word in s.split():
        if len(word) >= n:
            count += 1
    return count


def acronym(s):
    result = ""
    for word in s.split():
        if len(word) > 3:
            result += word[0].upper()
    return result


def reverse_long_words(s, n):
    words = s.split()
    for i in range(len(words)):
        if len(words[i]) >= n:
            words[i] = words[i][::-1]
    return " ".join(words)


def truncate_words(s, n):
    words = s.split()
    if len(words) <= n:
        return s
    return " ".join(words[:n]) + "..."


def count_lines_needed(words, n):
    count, total = 1, 0
    for word in words:
        if total + len(word) > n:
            count += 1
            total = 0
        total += len(word) + 1
    return count


def pluralize(word, n):
    if n == 1:
        return word
    if word[-1] == "s":
        return word + "es"
    return word + "s"


def middle_letters(word):
    i = len(word) // 2
    if len(word) % 2 == 1:
        return word[i]
    return word[i - 1] + word[i]


CASES = {
    "longest_word_up_to": [
        ((["a", "abc", "ab"], 2), "ab"), (([], 3), ""), ((["to", "be"], 2), "to"),
        ((["ab", "cd", "e"], 5), "ab"), ((["hi"], 1), ""), ((["x", "yy", "zzz"], 3), "zzz"),
        ((["", "a"], 1), "a"), ((["long", "lo"], 3), "lo"), ((["abc"], 4), "abc"),
    ],
    "count_long_words": [
        (("a big dog", 3), 2), (("", 1), 0), (("hi you", 3), 1), (("one two", 4), 0),
        (("a b c", 1), 3), (("abc", 3), 1), (("abcd abc ab", 3), 2), (("abc", 2), 1),
        (("x", 0), 1),
    ],
    "acronym": [
        (("central bank of asia",), "CBA"), (("the end",), ""), (("",), ""), (("four abc",), "F"),
        (("data",), "D"), (("world trade hub",), "WT"), (("a b",), ""),
        (("Open Code For All Users",), "OCU"),
    ],
    "reverse_long_words": [
        (("a big dog", 3), "a gib god"), (("hi you", 3), "hi uoy"), (("", 2), ""),
        (("ab cde", 4), "ab cde"), (("abcd", 3), "dcba"), (("abc ab", 2), "cba ba"),
        (("ab", 2), "ba"), (("one", 9), "one"),
    ],
    "truncate_words": [
        (("a b c", 2), "a b..."), (("a b", 2), "a b"), (("a b", 3), "a b"),
        (("one two three", 1), "one..."), (("", 0), ""), (("hi", 0), "..."),
        (("x y z", 3), "x y z"), (("a b c d", 2), "a b..."),
    ],
    "count_lines_needed": [
        ((["ab", "cd"], 5), 1), ((["ab", "cd"], 4), 2), (([], 5), 1), ((["a", "b", "c"], 3), 2),
        ((["abc"], 3), 1), ((["one", "two", "six"], 7), 2), ((["a", "a", "a", "a"], 1), 4),
        ((["ab", "c", "d"], 4), 2), ((["a", "b", "c"], 5), 1),
    ],
    "pluralize": [
        (("cat", 2), "cats"), (("cat", 1), "cat"), (("bus", 3), "buses"), (("dog", 0), "dogs"),
        (("bus", 1), "bus"), (("s", 2), "ses"), (("sun", 5), "suns"), (("gas", 0), "gases"),
    ],
    "middle_letters": [
        (("abc",), "b"), (("abcd",), "bc"), (("a",), "a"), (("ab",), "ab"), (("hello",), "l"),
        (("planet",), "an"), (("dog",), "o"), (("seventh",), "e"),
    ],
}
