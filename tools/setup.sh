# shellcheck shell=bash disable=SC2034
# setup.sh - the set-up that tools/quickstart and tests/run share: packages, then a configured
# build directory. Sourced by bash from the repository root; changes nothing that is in place.

packages_build="build-essential meson ninja-build pkgconf liburing-dev libhwloc-dev libck-dev
  libisal-dev libjansson-dev libseccomp-dev libmicrohttpd-dev"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# ensure_packages NAME...: installs those Debian packages that are missing, and says which.
ensure_packages() {
  local name missing=() as_root=()
  command -v dpkg-query > /dev/null || {
    say "not a Debian system: these must be in place under whatever name: $*"
    return 0
  }
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2> /dev/null)" = installed ] ||
      missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || die "as root, run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing with apt-get: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq < /dev/null >&2 || say "apt-get update failed, going on"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${missing[@]}" < /dev/null >&2 ||
    die "apt-get could not install: ${missing[*]}"
}

# ensure_fuzzer: clang with libFuzzer and the sanitizers. Its runtime is a package of its own.
ensure_fuzzer() {
  ensure_packages clang
  ! command -v dpkg-query > /dev/null ||
    ensure_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

# ensure_configured DIR OPTION...: a build directory with these meson options. The options are
# noted in it, so that only a change of them configures again.
ensure_configured() {
  local dir=$1 note=$1/.configured_with
  shift
  if [ ! -f "$dir/build.ninja" ]; then
    rm -rf "$dir"
    meson setup "$dir" "$@" >&2 || return 1
  elif [ "$(cat "$note" 2> /dev/null)" != "$*" ]; then
    meson setup --reconfigure "$dir" "$@" >&2 || return 1
  fi
  printf '%s\n' "$*" > "$note"
}
