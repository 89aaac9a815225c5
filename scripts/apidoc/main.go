// Command apidoc writes docs/api.md: the router's local API as the Go types of pkg/ctl
// have it. What is new there is on the page with the next run, and the test of this
// package fails until then.
//
//	go generate ./scripts/apidoc
package main

import (
	_ "embed"
	"fmt"
	"os"
)

//go:generate go run . ../.. ../../docs/api.md

//go:embed head.md
var head string

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: apidoc TREE FILE")
		os.Exit(2)
	}
	text, err := document(os.Args[1])
	if err == nil {
		err = os.WriteFile(os.Args[2], []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "apidoc:", err)
		os.Exit(1)
	}
}

// document is the whole page, of the tree in a directory.
func document(tree string) (string, error) {
	a, err := readAPI(tree)
	if err != nil {
		return "", err
	}
	return head + a.page(), nil
}
