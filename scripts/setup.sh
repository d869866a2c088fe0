# Sourced by the other scripts: leaves a `python` on PATH that can import this package. Works from any directory.
#
#   SETUP_EXTRAS="dev eval"     extras of pyproject.toml that are needed besides the core (default: none)
#
# An active environment (venv, conda) that already satisfies pyproject.toml is used as it is. Otherwise .venv at the
# repository root is made and filled with the versions of constraints.txt. A stamp in .venv holds a checksum of
# pyproject.toml and constraints.txt and is written only after a complete install, so the next run starts at once
# and an interrupted install is taken up again.
# shellcheck shell=bash

setup_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
setup_venv="$setup_root/.venv"

setup_say() { printf 'setup: %s\n' "$*" >&2; }

# What an installed environment depends on: the two files, and the place it was installed for.
setup_fingerprint() { { cat "$setup_root/pyproject.toml" "$setup_root/constraints.txt"; echo "$setup_root"; } | cksum; }

# True when .venv starts and holds the core and every extra of SETUP_EXTRAS, installed from the present files.
setup_is_stamped() {
    local fingerprint part
    fingerprint="$(setup_fingerprint)"
    for part in core ${SETUP_EXTRAS:-}; do
        [ "$(cat "$setup_venv/.setup-$part" 2>/dev/null)" = "$fingerprint" ] || return 1
    done
    "$setup_venv/bin/python" -c '' 2>/dev/null
}

setup_find_python() {
    local candidate
    for candidate in python3 python python3.13 python3.12 python3.11 python3.10; do
        "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo "$candidate" && return 0
    done
    setup_say "no Python 3.10 or newer with the venv module was found; install one (Debian: apt-get install python3-venv)."
    return 1
}

setup_install() {
    local python extras="${SETUP_EXTRAS:-}" target="$setup_root" log="$setup_venv/install.log" part
    if ! "$setup_venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python="$(setup_find_python)" || return 1
        if ! "$python" -m venv --clear "$setup_venv" >&2; then
            setup_say "could not create $setup_venv (see above; Debian: apt-get install python3-venv)."
            return 1
        fi
    fi
    extras="$(echo $extras)"
    [ -z "$extras" ] || target="$setup_root[${extras// /,}]"
    setup_say "installing the package into $setup_venv${extras:+ with extras: $extras} (first time: a few minutes) ..."
    rm -f "$setup_venv"/.setup-*
    if ! "$setup_venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --constraint "$setup_root/constraints.txt" --editable "$target" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        setup_say "the install failed (full log: $log); nothing is stamped, run the same command again to go on."
        return 1
    fi
    for part in core $extras; do setup_fingerprint >"$setup_venv/.setup-$part"; done
}

# Only one install at a time; whoever waited finds the stamp and is done.
setup_install_once() {
    setup_is_stamped && return 0
    mkdir -p "$setup_venv"
    if command -v flock >/dev/null 2>&1; then
        (flock 9 && { setup_is_stamped || setup_install; }) 9>"$setup_root/.venv.lock"
    else
        setup_install
    fi
}

# Prints what the `python` on PATH lacks and returns 1, or returns 0.
# shellcheck disable=SC2086
setup_check_path() { python "$setup_root/scripts/check_environment.py" ${SETUP_EXTRAS:-} 2>&1; }

setup_main() {
    local active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" lacking note=""
    # The user's own environment first (also a container's plain `python`), unless it is our .venv.
    if [ "$active" != "$setup_venv" ] && { [ -n "$active" ] || ! setup_is_stamped; }; then
        if lacking="$(setup_check_path)"; then
            setup_say "using the active environment (${active:-$(command -v python)})"
            export PYTHONPATH="$setup_root${PYTHONPATH:+:$PYTHONPATH}"
            return 0
        fi
        [ -z "$active" ] || note="; the active environment $active lacks ${lacking//$'\n'/, }"
    fi
    setup_install_once || return 1
    setup_say "using $setup_venv$note"
    export VIRTUAL_ENV="$setup_venv" PATH="$setup_venv/bin:$PATH"
    unset PYTHONHOME
    hash -r
}

setup_main
