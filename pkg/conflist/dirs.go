package conflist

// Dir is where runtimes read network lists unless they are told otherwise.
const Dir = "/etc/cni/net.d"

// PluginDirs are where runtimes look for plugins: upstream's place, then those of
// distributions.
func PluginDirs() []string { return []string{"/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"} }
