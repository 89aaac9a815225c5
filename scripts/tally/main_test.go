package main

import (
	"strings"
	"testing"
)

const stream = `go: downloading something
{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"=== RUN TestOne\n"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"quiet\n"}
{"Action":"pass","Package":"a","Test":"TestOne","Elapsed":0.1}
{"Action":"output","Package":"a","Test":"TestTwo","Output":"loud\n"}
{"Action":"fail","Package":"a","Test":"TestTwo","Elapsed":0.1}
{"Action":"output","Package":"a","Test":"TestThree","Output":"needs root\n"}
{"Action":"skip","Package":"a","Test":"TestThree","Elapsed":0.1}
{"Action":"fail","Package":"a","Elapsed":0.3}
{"Action":"pass","Package":"b","Elapsed":0.3}
{"ImportPath":"c","Action":"build-output","Output":"c.go:1: no\n"}
{"ImportPath":"c","Action":"build-fail"}
{"Action":"output","Package":"c","Output":"FAIL\tc [build failed]\n"}
{"Action":"fail","Package":"c","Elapsed":0,"FailedBuild":"c"}
{"Action":"skip","Package":"d","Elapsed":0}
`

func TestTallyCountsAndTellsWhatMatters(t *testing.T) {
	var out strings.Builder
	ta := newTally(&out)
	if err := ta.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	// One test failed, and one package that does not build.
	if ta.passed != 1 || ta.failed != 2 || ta.skipped != 1 {
		t.Errorf("got %d passed, %d failed, %d skipped", ta.passed, ta.failed, ta.skipped)
	}
	for _, want := range []string{"loud", "needs root", "c.go:1: no", "build failed", "downloading", "ok       0.3 s  b"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "quiet") {
		t.Errorf("tells of a test that passed:\n%s", out.String())
	}
}
