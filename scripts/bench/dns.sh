#!/bin/bash
# Measures the name server with dnsperf, beside dnsmasq, CoreDNS, aardvark-dns and a
# bare server of the miekg/dns library: names of ours, 1,000 and 100,000 of them; names
# of others from the cache; and what a container waits while another floods the server.
# Takes about eight minutes; needs root and a machine that does nothing else. Flags go to
# the driver:
#
#   scripts/bench/dns.sh
#   scripts/bench/dns.sh -rounds 2 -length 2s -names 1000    a quick look
#   scripts/bench/dns.sh -rounds 0 -floods 5 -names 1000     the floods alone
#   COREDNS=/path/to/coredns scripts/bench/dns.sh            one that is built already
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh
. scripts/lib/coredns.sh

need_root
need_go
need_packages ip=iproute2 dig=bind9-dnsutils dnsperf=dnsperf /usr/sbin/dnsmasq=dnsmasq-base /usr/lib/podman/aardvark-dns=aardvark-dns
scratch
step 'building'
need_coredns
go build -o "$work/dnsbench" ./scripts/bench/dnsbench
step "measuring on $(nproc) cores, kernel $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"
TMPDIR=$work "$work/dnsbench" -coredns "$COREDNS" -aardvark /usr/lib/podman/aardvark-dns "$@"
