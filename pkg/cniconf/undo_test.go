package cniconf

import (
	"slices"
	"testing"
)

func TestUndoRunsBackwardsOnceAndPastAPanic(t *testing.T) {
	var got []int
	var u Undo
	u.Push(func() { got = append(got, 1) })
	u.Push(func() { panic("broken step") })
	u.Push(func() { got = append(got, 3) })
	u.Run()
	u.Run()
	if !slices.Equal(got, []int{3, 1}) {
		t.Errorf("got %v", got)
	}
}

func TestUndoKeepsWhatSucceeded(t *testing.T) {
	var u Undo
	u.Push(func() { t.Error("undone") })
	u.Keep()
	u.Run()
}
