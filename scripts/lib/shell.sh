# What the scripts share: words on the terminal, packages, programs. Source it.
# shellcheck shell=bash

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' amber=$'\e[33m' plain=$'\e[0m'
else
	bold='' red='' green='' amber='' plain=''
fi

step() { printf '%s==>%s %s\n' "$bold" "$plain" "$*"; }
good() { printf '    %s%s%s\n' "$green" "$*" "$plain"; }
warn() { printf '    %s%s%s\n' "$amber" "$*" "$plain" >&2; }
die() {
	printf '%s%s: %s%s\n' "$red" "${0##*/}" "$*" "$plain" >&2
	exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }
need_root() { is_root || die 'needs root: namespaces, links and firewall rules are what it is about'; }

need_go() {
	command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
	command -v go >/dev/null || die 'needs Go 1.26 or newer: https://go.dev/dl'
}

# have WHAT: a program in the path, or a file if it starts with a slash.
have() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

# need_packages WHAT=PACKAGE…: installs Debian packages whose WHAT is missing.
need_packages() {
	local pair missing=()
	PATH=$PATH:/usr/sbin:/sbin
	for pair; do
		have "${pair%%=*}" || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	step "installing ${missing[*]}"
	is_root && have apt-get || die "install these packages: ${missing[*]}"
	{
		apt-get update &&
			DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
	} >"${TMPDIR:-/tmp}/weave-apt.log" 2>&1 || {
		tail -n 20 "${TMPDIR:-/tmp}/weave-apt.log" >&2
		die 'apt-get failed'
	}
}

# scratch: a directory of this run, named in $work, that goes with the script.
# What the script has started it must end itself; on_exit COMMAND is for that.
scratch() {
	work=$(mktemp -d "${TMPDIR:-/tmp}/weave.XXXXXX")
	on_exit rm -rf "$work"
}

_on_exit=()
# on_exit COMMAND…: to be run when the script ends, the last one first.
on_exit() {
	_on_exit=("$(printf '%q ' "$@")" "${_on_exit[@]}")
	trap _run_on_exit EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}
_run_on_exit() {
	local code=$? c
	for c in "${_on_exit[@]}"; do eval "$c" || true; done
	exit "$code"
}

# build_reference DIR: the reference CNI plugins and cnitool, at the versions of go.mod.
build_reference() {
	mkdir -p "$1"
	CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$(go list -m -f '{{.Version}}' github.com/containernetworking/plugins)" \
		-o "$1/" tool
}
