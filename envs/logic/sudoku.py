"""Sudokus of 4, 6 and 9 digits with one solution, which looking at one cell at a time finds."""

from __future__ import annotations

import json
import random

from palestra.envs.puzzle import Puzzle

BLOCKS = {1: (2, 2), 2: (2, 3), 3: (3, 3), 4: (3, 3)}
"""Height and width of a block, by difficulty."""
BLANKS = {1: 8, 2: 18, 3: 36, 4: 50}
"""Cells that are emptied at most."""

Grid = list[list[int]]
"""Rows of digits from 1 on; 0 is an empty cell."""


def sudoku(rng: random.Random, difficulty: int) -> Puzzle:
    """A grid with as many blanks as its difficulty has, or fewer."""
    block = BLOCKS[difficulty]
    full = _filled(rng, block)
    clues = _with_blanks(rng, full, block, BLANKS[difficulty])
    size = block[0] * block[1]
    shown = ["".join(str(d) if d else "." for d in row) for row in clues]
    return Puzzle(
        prompt=f"Fill the dots with the digits 1 to {size} so that every row, every column and "
        f"every block of {block[0]} rows and {block[1]} columns has each digit once. The answer is "
        f"the whole grid, {size} rows of {size} digits.\n" + "\n".join(shown),
        verifier="sudoku",
        expected=json.dumps({"rows": shown, "block": block}),
        solution="\n".join("".join(map(str, row)) for row in full),
    )


def _fitting(grid: Grid, block: tuple[int, int], y: int, x: int) -> list[int]:
    height, width = block
    top, left = y - y % height, x - x % width
    near = {d for row in grid[top : top + height] for d in row[left : left + width]}
    seen = near | set(grid[y]) | {row[x] for row in grid}
    return [digit for digit in range(1, height * width + 1) if digit not in seen]


def _filled(rng: random.Random, block: tuple[int, int]) -> Grid:
    """A full grid: the cyclic one with its digits, bands, rows, stacks and columns shuffled."""
    height, width = block
    size = height * width
    digits = rng.sample(range(1, size + 1), size)
    rows = _shuffled(rng, bands=width, lines=height)
    columns = _shuffled(rng, bands=height, lines=width)
    return [
        [digits[(width * (y % height) + y // height + x) % size] for x in columns] for y in rows
    ]


def _shuffled(rng: random.Random, *, bands: int, lines: int) -> list[int]:
    order = rng.sample(range(bands), bands)
    return [band * lines + line for band in order for line in rng.sample(range(lines), lines)]


def _with_blanks(rng: random.Random, full: Grid, block: tuple[int, int], blanks: int) -> Grid:
    """Cells are emptied whose digit is the only one that fits: undone in reverse, that is a proof
    that no other solution exists."""
    grid = [row.copy() for row in full]
    cells = [(y, x) for y in range(len(grid)) for x in range(len(grid))]
    for y, x in rng.sample(cells, len(cells)):
        digit, grid[y][x] = grid[y][x], 0
        if blanks and len(_fitting(grid, block, y, x)) == 1:
            blanks -= 1
        else:
            grid[y][x] = digit
    return grid
