package inject

import (
	"path"
	"slices"
	"strings"
)

// mount is one line of a mountinfo.
type mount struct {
	dev   string // MAJOR:MINOR of the file system
	root  string // what of the file system is mounted
	point string // where, as seen from the process' root
}

// parseMounts reads a mountinfo. What is no line of one is passed over.
func parseMounts(text string) []mount {
	var out []mount
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		m := mount{dev: f[2], root: unescape(f[3]), point: unescape(f[4])}
		if path.IsAbs(m.root) && path.IsAbs(m.point) {
			out = append(out, m)
		}
	}
	return out
}

// unescape reads the \040 by which the kernel writes what would end a field.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | s[i+3] - '0')
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) bool {
	return s[0] <= '3' && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '7' })
}

// resolvConfs are the mounts on a file of that name in an /etc, the last one first:
// that hides the others at its place.
func resolvConfs(ms []mount) []mount {
	ms = slices.DeleteFunc(slices.Clone(ms), func(m mount) bool { return !strings.HasSuffix(m.point, "/etc/resolv.conf") })
	slices.Reverse(ms)
	return ms
}

// hostPaths are the paths at which the host has what a mount of a container shows.
func hostPaths(host []mount, m mount) []string {
	var out []string
	for _, h := range host {
		if h.dev != m.dev {
			continue
		}
		if rel, ok := below(m.root, h.root); ok {
			if p := path.Join(h.point, rel); !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// below cuts dir off a path in it; "" for dir itself.
func below(p, dir string) (rel string, ok bool) {
	if dir == "/" {
		return p, path.IsAbs(p)
	}
	rel, ok = strings.CutPrefix(p, dir)
	return rel, ok && (rel == "" || rel[0] == '/')
}
