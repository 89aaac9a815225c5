package conflist

import (
	"context"
	"fmt"
)

// AskOne asks one plugin, as found first in dirs, which spec versions it speaks. path is
// "" where no directory has it, and set where it is there and does not answer.
func AskOne(ctx context.Context, plugin string, dirs []string) (path string, speaks []string, err error) {
	if path, err = find(plugin, dirs); err != nil {
		return "", nil, err
	}
	if speaks, err = versions(ctx, path); err != nil {
		return path, nil, fmt.Errorf("ask %s for its versions: %w", path, err)
	}
	return path, speaks, nil
}

// Find is where a plugin is found first in dirs; *Missing where none has it.
func Find(plugin string, dirs []string) (path string, err error) { return find(plugin, dirs) }
