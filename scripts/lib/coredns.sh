# CoreDNS at one version, with the plugins that are measured and the ones that the docs' stub
# needs, unless COREDNS names one that is built already.
need_coredns() {
	local version=v1.12.4
	[ -z "${COREDNS:-}" ] || return 0
	mkdir -p "$work/coredns-src"
	cat >"$work/coredns-src/main.go" <<-'END'
		package main

		import (
			"github.com/coredns/coredns/core/dnsserver"
			"github.com/coredns/coredns/coremain"
			_ "github.com/coredns/coredns/plugin/bind"
			_ "github.com/coredns/coredns/plugin/cache"
			_ "github.com/coredns/coredns/plugin/errors"
			_ "github.com/coredns/coredns/plugin/forward"
			_ "github.com/coredns/coredns/plugin/hosts"
		)

		func main() {
			dnsserver.Directives = []string{"bind", "errors", "cache", "hosts", "forward"}
			coremain.Run()
		}
	END
	printf 'module coredns\n\ngo 1.25\n\nrequire github.com/coredns/coredns %s\n' "$version" >"$work/coredns-src/go.mod"
	(cd "$work/coredns-src" && go mod tidy && go build -trimpath -o "$work/coredns" .) >"$work/coredns.log" 2>&1 || {
		tail -n 20 "$work/coredns.log" >&2
		die "CoreDNS $version cannot be built"
	}
	COREDNS=$work/coredns
}
