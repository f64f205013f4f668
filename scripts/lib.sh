# Shared by ./quickstart and ./test: saying what happens, installing, building.

if [ -t 1 ]; then bold=$'\e[1m' cyan=$'\e[36m' reset=$'\e[0m'; else bold='' cyan='' reset=''; fi

# step WHAT: with the minutes and seconds since the start.
step() { printf '\n%s==>%s %s%s%s (%d:%02d)\n' "$cyan" "$reset" "$bold" "$*" "$reset" $((SECONDS / 60)) $((SECONDS % 60)); }
say() { printf '    %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; return; fi
    command -v sudo >/dev/null || { echo "to run $1 as root, install sudo or run this script as root" >&2; return 1; }
    sudo "$@"
}

# packages NAME...: installs the Debian packages that are not there yet, and starts none of their services.
packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    if [ ${#missing[@]} = 0 ]; then say "all there"; return; fi
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >"$policy"
            chmod +x "$policy"
        fi
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "${missing[@]}"
}

# Where cargo puts what it builds.
built="${CARGO_TARGET_DIR:-$PWD/target}"

# Rust 1.91 or newer: what is there, else by rustup (Debian 12 has an older one).
need_rust() {
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    if ! command -v cargo >/dev/null; then
        say "installing Rust by rustup"
        curl -fsS https://sh.rustup.rs | sh -s -- -y -q --profile minimal -c clippy -c rustfmt
        . "$HOME/.cargo/env"
    fi
    say "$(cargo --version)"
}

# need_tool NAME: a program of Rust's registry, built once into target/tools.
need_tool() {
    PATH="$built/tools/bin:$PATH"
    export PATH
    command -v "$1" >/dev/null && return
    say "building $1"
    cargo install --quiet --locked --debug --root "$built/tools" "$1"
}

# compiling: makes a line each 15 seconds of the many that cargo writes, also while it writes none.
compiling() {
    local line part='' word rest crates done=0 begun=$SECONDS said=$SECONDS now=nothing ended
    crates=$(cargo tree --locked -p cli -e normal,build --prefix none --format '{p}' 2>/dev/null | sed 's/ (\*)$//' | sort -u | wc -l)
    while true; do
        if IFS= read -r -t 1 line; then
            read -r word rest <<<"$part$line" || true
            part=''
            case "$word" in
            Compiling) done=$((done + 1)) now=$rest ;;
            Downloading | Downloaded | Updating | Locking | Finished | Blocking) ;;
            *) echo "$word $rest" ;;
            esac
        else
            ended=$?
            # More than 128: no whole line came within the second.
            [ "$ended" -gt 128 ] || break
            part+=$line
        fi
        if [ $((SECONDS - said)) -ge 15 ]; then
            said=$SECONDS
            say "$done of $crates crates after $((SECONDS - begun)) s, now $now"
        fi
    done
}

# build_release: says how far it is, every 15 seconds where there is no terminal for cargo's own bar.
build_release() {
    say "this takes some minutes the first time, most of them for the last crates"
    if [ -t 2 ]; then
        cargo build --release --locked -p cli --bins
    else
        cargo build --release --locked -p cli --bins 2>&1 | compiling
    fi
    PATH="$built/release:$PATH"
    export PATH
}

# wait_for FILE: until it is there and not empty, 20 seconds at most.
wait_for() {
    local _
    for _ in $(seq 200); do [ -s "$1" ] && return; sleep 0.1; done
    echo "$1 did not appear within 20 s" >&2
    return 1
}

# ignored_tests FILE: lists the tests that could not run. Fails if this machine could run one of them: whatever needs
# root or a program, except for the programs that Debian does not have or that are another one there.
ignored_tests() {
    local could=0 missing test reason
    [ -s "$1" ] || { say "no test was ignored"; return; }
    while IFS=$'\t' read -r missing test reason; do
        case "$missing" in
        machine | 'program cosign' | 'program kubectl' | 'program go') say "ignored: $test: $reason" ;;
        *) say "ignored, but this machine could run it: $test: $reason"; could=$((could + 1)) ;;
        esac
    done < <(sort -u "$1")
    [ "$could" = 0 ] || { echo "$could tests were ignored that this machine could run" >&2; return 1; }
}

# need_what_tests_need: the peers and servers that tests start.
need_what_tests_need() {
    step "Install what the tests need, from Debian"
    packages gcc libc6-dev make curl ca-certificates mmdebstrap uidmap git \
        busybox-static docker-registry buildah skopeo podman containernetworking-plugins crun runc containerd apache2-utils attr acl \
        xz-utils bzip2 zstd openssl opensc softhsm2 util-linux bsdutils iproute2 iptables nftables chromium gnupg openssh-client strace \
        nginx-light redis-server postgresql

    step "Install an S3-compatible server for the registry's tests"
    command -v moto_server >/dev/null && return
    packages python3-venv
    python3 -m venv target/moto
    target/moto/bin/pip install --quiet 'moto[server]>=5.1,<6'
    PATH="$PWD/target/moto/bin:$PATH"
    export PATH
}

# test_everything [--release]: all tests, as root. Fails if one failed, or was ignored though this machine could run it.
test_everything() {
    local status=0 record="$PWD/target/ignored-tests"
    as_root rm -f "$record"
    : >"$record"
    chmod 666 "$record" # tests run as other users, too
    if [ "$(id -u)" = 0 ]; then
        IGNORED_TESTS="$record" scripts/suite --locked "$@" || status=$?
    else
        RUNNER="sudo env PATH=$PATH IGNORED_TESTS=$record" scripts/suite --locked "$@" || status=$?
    fi
    ignored_tests "$record" || status=1
    return "$status"
}
