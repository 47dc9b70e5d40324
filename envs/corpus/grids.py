def column_sums(grid):
    result = [0] * len(grid[0])
    for row in grid:
        for i in range(len(row)):
            result[i] += row[i]
    return result


def diagonal_difference(grid):
    a, b = 0, 0
    for i in range(len(grid)):
        a += grid[i][i]
        b += grid[i][-1 - i]
    return abs(a - b)


def is_in_grid(grid, i, j):
    if i < 0 or j < 0:
        return False
    return i < len(grid) and j < len(grid[0])


def neighbor_total(grid, i, j):
    total = 0
    for row in grid[max(i - 1, 0):i + 2]:
        total += sum(row[max(j - 1, 0):j + 2])
    return total - grid[i][j]


def index_of_best_row(grid):
    best = 0
    for i in range(1, len(grid)):
        if sum(grid[i]) > sum(grid[best]):
            best = i
    return best


def make_times_table(n, width):
    result = []
    for i in range(1, n + 1):
        row = [i * j for j in range(1, width + 1)]
        result.append(row)
    return result


def is_symmetric_grid(grid):
    for i in range(len(grid)):
        for j in range(i):
            if grid[i][j] != grid[j][i]:
                return False
    return True


def border_total(grid):
    total = sum(grid[0]) + sum(grid[-1])
    for row in grid[1:-1]:
        total += row[0] + row[-1]
    return total


CASES = {
    "column_sums": [
        (([[1, 2], [3, 4]],), [4, 6]), (([[5]],), [5]), (([[1, 0, 2]],), [1, 0, 2]),
        (([[1], [2], [3]],), [6]), (([[0, 0], [0, 0]],), [0, 0]), (([[-1, 1], [1, -1]],), [0, 0]),
        (([[1, 2, 3], [4, 5, 6]],), [5, 7, 9]), (([[2, 2], [2, 2], [2, 1]],), [6, 5]),
    ],
    "diagonal_difference": [
        (([[1, 2], [3, 5]],), 1), (([[4]],), 0), (([[1, 2, 3], [4, 5, 6], [7, 8, 1]],), 8),
        (([[1, 0, 0], [0, 1, 0], [0, 0, 1]],), 2), (([[9, 0], [0, 1]],), 10), (([],), 0),
        (([[0, 7], [2, 0]],), 9), (([[2, 2], [2, 2]],), 0),
    ],
    "is_in_grid": [
        (([[1, 2]], 1, 0), False), (([[1], [2]], -1, 0), False), (([[1], [2]], 0, -1), False),
        (([[5]], 0, 0), True), (([[1, 2]], 0, 1), True), (([[1, 2]], 0, 2), False),
        (([[1], [2]], 1, 0), True), (([[1], [2]], 0, 1), False), (([[1, 2], [3, 4]], 1, 1), True),
        (([[5]], -1, -1), False),
    ],
    "neighbor_total": [
        (([[1, 2], [3, 4]], 0, 0), 9), (([[1, 2, 3]], 0, 2), 2),
        (([[1], [2], [3], [4]], 2, 0), 6), (([[1, 2, 3, 4]], 0, 1), 4),
        (([[1, 1, 1], [1, 5, 1], [1, 1, 1]], 1, 1), 8), (([[7]], 0, 0), 0),
        (([[1, 2, 3, 4]], 0, 2), 6), (([[0, 1], [1, 0]], 1, 1), 2),
        (([[1, 2], [3, 4], [5, 6]], 2, 1), 12), (([[1, 2], [3, 4], [5, 6]], 0, 1), 8),
    ],
    "index_of_best_row": [
        (([[1, 2], [3, 4]],), 1), (([[2, 2], [1, 3]],), 0), (([[5]],), 0),
        (([[1], [9], [4]],), 1), (([[0], [1], [2]],), 2), (([[7, 0], [0, 0]],), 0),
        (([[-1], [-2]],), 0), (([[1], [3], [3]],), 1),
    ],
    "make_times_table": [
        ((2, 2), [[1, 2], [2, 4]]), ((1, 3), [[1, 2, 3]]), ((3, 1), [[1], [2], [3]]),
        ((0, 2), []), ((2, 0), [[], []]), ((2, 3), [[1, 2, 3], [2, 4, 6]]), ((1, 1), [[1]]),
        ((3, 2), [[1, 2], [2, 4], [3, 6]]),
    ],
    "is_symmetric_grid": [
        (([[1, 2], [2, 1]],), True), (([[1, 2], [3, 1]],), False), (([[5]],), True),
        (([[1, 2, 3], [2, 1, 4], [3, 4, 1]],), True), (([],), True),
        (([[1, 2, 3], [2, 1, 4], [3, 5, 1]],), False), (([[0, 0], [1, 0]],), False),
        (([[1, 2, 3], [2, 1, 4], [0, 4, 1]],), False), (([[0, 7], [7, 9]],), True),
    ],
    "border_total": [
        (([[1, 2], [3, 4]],), 10), (([[1, 1, 1], [1, 9, 1], [1, 1, 1]],), 8),
        (([[1, 2], [3, 4], [5, 6]],), 21), (([[0, 1, 0], [2, 7, 3], [0, 4, 0]],), 10),
        (([[1], [2]],), 3), (([[0, 0], [0, 0]],), 0), (([[1, 2, 3], [4, 5, 6], [7, 8, 9]],), 40),
        (([[1, 0], [2, 3], [4, 5], [0, 6]],), 21),
    ],
}
