"""Solutions of ours to problems of the CodeContests sample, which comes without any."""

SOLUTIONS = {
    # Codeforces 1000A: how many sizes of one list have to become others.
    "3": """\
from collections import Counter
n = int(input())
old = Counter(input().strip() for _ in range(n))
new = Counter(input().strip() for _ in range(n))
print(sum((old - new).values()))
""",
    # Codeforces 1198A: the fewest values changed so that k bits per value are enough.
    "12": """\
from collections import Counter
n, size = map(int, input().split())
kept = 2 ** min(20, 8 * size // n)
counts = [count for _, count in sorted(Counter(map(int, input().split())).items())]
best = current = sum(counts[:kept])
for place in range(kept, len(counts)):
    current += counts[place] - counts[place - kept]
    best = max(best, current)
print(n - best)
""",
    # Codeforces 1238B: shots at the farthest, each pushing the others.
    "14": """\
for _ in range(int(input())):
    _, push = map(int, input().split())
    places = sorted(set(map(int, input().split())), reverse=True)
    print(sum(place - shot * push > 0 for shot, place in enumerate(places)))
""",
    # Codeforces 12B: the smallest number of the same digits.
    "17": """\
digits, said = sorted(input().strip()), input().strip()
first = next((place for place, digit in enumerate(digits) if digit != "0"), 0)
smallest = digits[first] + "".join(digits[:first] + digits[first + 1 :])
print("OK" if smallest == said else "WRONG_ANSWER")
""",
    # Codeforces 1342C: counting by the period a * b.
    "19": """\
for _ in range(int(input())):
    a, b, questions = map(int, input().split())
    sums = [0]
    for x in range(a * b):
        sums.append(sums[-1] + (x % a % b != x % b % a))
    def below(x):
        return x // (a * b) * sums[-1] + sums[x % (a * b)]
    answers = []
    for _ in range(questions):
        left, right = map(int, input().split())
        answers.append(below(right + 1) - below(left))
    print(*answers)
""",
    # CodeChef DIGJUMP: breadth first over places and digits.
    "2": """\
text = input().strip()
places = {}
for place, digit in enumerate(text):
    places.setdefault(digit, []).append(place)
seen, front, steps = {0}, [0], 0
while len(text) - 1 not in seen:
    following = []
    for place in front:
        for there in [place - 1, place + 1, *places.pop(text[place], [])]:
            if 0 <= there < len(text) and there not in seen:
                seen.add(there)
                following.append(there)
    front, steps = following, steps + 1
print(steps)
""",
}
