package netlists

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestTheRangesOfOthersListsAreKnownAlsoWhereNothingStands(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-weave.conflist":   `{"name":"weave","plugins":[{"type":"weave-net","ipam":{"type":"weave-ipam","subnet":"10.32.0.0/12"}}]}`,
		"weave-blue.conflist": `{"name":"blue","plugins":[{"type":"weave-net","ipam":{"type":"weave-ipam","subnet":"10.48.0.0/20"}}]}`,
		"87-podman.conflist":  `{"name":"podman","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}],[{"subnet":"fd00::/64"}]]}}]}`,
		"90-one.conf":         `{"name":"one","type":"ptp","ipam":{"type":"host-local","subnet":"10.1.2.3/24"}}`,
		"91-bad.conf":         `{"ipam":{"subnet":7}}`,
		"92-bad.conflist":     `{"plugins":[{"ipam":{"ranges":[[{"subnet":"nonsense"},{"subnet":"0.0.0.0/0"}],null]}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"87-podman.conflist podman 10.88.0.0/16", "87-podman.conflist podman fd00::/64", "90-one.conf one 10.1.2.0/24"}
	k := New(dir, slog.New(slog.DiscardHandler))
	got := k.Ranges()
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i, r := range got {
		if s := filepath.Base(r.File) + " " + r.Network + " " + r.Prefix.String(); s != want[i] {
			t.Errorf("got %s, want %s", s, want[i])
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "90-one.conf"), []byte(`{"name":"one"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := k.Ranges(); len(got) != len(want)-1 {
		t.Errorf("one has gone: got %+v", got)
	}
	if got := New("", slog.New(slog.DiscardHandler)).Ranges(); got != nil {
		t.Errorf("of no directory: %+v", got)
	}
}

func FuzzSubnetsOfAnyText(f *testing.F) {
	f.Add(`{"plugins":[{"ipam":{"ranges":[[{"subnet":"10.88.0.0/16"}],null]}}],"ipam":{"subnet":"::1/99"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range (file{text: text}).subnets() {
			if !p.IsValid() || p != p.Masked() {
				t.Errorf("%v of %q", p, text)
			}
		}
	})
}
