"""Languages of benchmarks that are translated from Python, and how a program in one is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """``names`` in records, the ``file`` of a program and the words that run it; ``wrong`` and
    ``done`` as in ``AppendedCheck``. ``instead`` maps what tests ask of packages that a box lacks
    to something that does the same.

    Example: ``LANGUAGES["js"].argv[0] == "node"``
    """

    names: tuple[str, ...]
    file: str
    argv: tuple[str, ...]
    wrong: str
    done: str
    instead: Mapping[str, str] = field(default_factory=dict)


_LODASH = '({isEqual: require("util").isDeepStrictEqual})'
_EQUAL_PERL = """\
sub {name} {{
    my ($x, $y) = @_;
    return !defined $x && !defined $y unless defined $x && defined $y;
    return 0 if ref $x ne ref $y;
    if (ref $x eq 'ARRAY') {{
        return 0 if @$x != @$y;
        for my $i (0 .. $#$x) {{ return 0 unless {name}($x->[$i], $y->[$i]); }}
        return 1;
    }}
    if (ref $x eq 'HASH') {{
        return 0 if keys %$x != keys %$y;
        for my $k (keys %$x) {{
            return 0 unless exists $y->{{$k}} && {name}($x->{{$k}}, $y->{{$k}});
        }}
        return 1;
    }}
    return $x eq $y;
}}
"""

_ALL = (
    Language(
        names=("javascript", "js"),
        file="solution.js",
        argv=("node", "solution.js"),
        wrong="require('node:assert').deepEqual(1, 2);",
        done="require('node:fs').writeSync(1, 'TOKEN');",
        instead={"require('lodash')": _LODASH, 'require("lodash")': _LODASH},
    ),
    Language(
        names=("bash", "sh", "shell"),
        file="solution.sh",
        argv=("bash", "solution.sh"),
        wrong="[[ 1 = 2 ]] || exit 1",
        done="builtin printf %s TOKEN",
    ),
    Language(
        names=("perl", "pl"),
        file="solution.pl",
        argv=("perl", "solution.pl"),
        wrong="die 'wrong' unless 1 == 2;",
        done="syswrite(STDOUT, 'TOKEN');",
        instead={
            "use Data::Compare;": _EQUAL_PERL.format(name="Compare"),
            "use Test::Deep;": _EQUAL_PERL.format(name="eq_deeply"),
        },
    ),
    Language(
        names=("ruby", "rb"),
        file="solution.rb",
        argv=("ruby", "solution.rb"),
        wrong="raise 'wrong' unless 1 == 2",
        done="STDOUT.syswrite('TOKEN')",
    ),
    Language(
        names=("php",),
        file="solution.php",
        argv=("php", "solution.php"),
        wrong="if (1 !== 2) { throw new Exception('wrong'); }",
        done="fwrite(STDOUT, 'TOKEN');",
    ),
    Language(
        names=("lua",),
        file="solution.lua",
        argv=("lua", "solution.lua"),
        wrong="assert(1 == 2)",
        done="io.write('TOKEN')",
    ),
    Language(
        names=("r",),
        file="solution.R",
        argv=("Rscript", "--vanilla", "solution.R"),
        wrong="stopifnot(identical(1, 2))",
        done="cat('TOKEN')",
    ),
    Language(
        names=("julia", "jl"),
        file="solution.jl",
        argv=("julia", "solution.jl"),
        wrong="@assert 1 == 2",
        done='print("TOKEN")',
    ),
)
LANGUAGES: Mapping[str, Language] = {name: item for item in _ALL for name in item.names}
"""By every name that records have for them. Compiled languages are not among them."""

PYTHON = frozenset({"python", "py", "python3", ""})
