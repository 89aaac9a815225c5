package cniconf

// Undo is what takes an ADD back: steps that run backwards, newest first,
// unless Keep was called. Use:
//
//	var undo cniconf.Undo
//	defer undo.Run()
//	… undo.Push(func() { release it }) after each change …
//	undo.Keep() // the last step succeeded
//
// Run runs while a panic unwinds too. Not for concurrent use.
type Undo struct {
	steps []func()
	kept  bool
}

// Push adds the step that takes back what was just done.
func (u *Undo) Push(step func()) { u.steps = append(u.steps, step) }

// Keep makes Run do nothing.
func (u *Undo) Keep() { u.kept = true }

// Run takes everything back, once. A step that panics does not keep the others from running.
func (u *Undo) Run() {
	if u.kept {
		return
	}
	for len(u.steps) > 0 {
		last := len(u.steps) - 1
		step := u.steps[last]
		u.steps = u.steps[:last]
		func() {
			defer func() {
				if recover() != nil {
					return // the cause is already on its way to the caller
				}
			}()
			step()
		}()
	}
}
