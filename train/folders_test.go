package train

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"autodev/configs"
)

// TestFoldersOfFailedRuns: what a run made and left empty is removed, and nothing else.
func TestFoldersOfFailedRuns(t *testing.T) {
	there := t.TempDir()
	out := filepath.Join(there, "a", "b", "out")
	for _, file := range []string{"", "out/train.jsonl", "other"} {
		created, err := makeFolders(out)
		if err != nil {
			t.Fatal(err)
		}
		if file != "" {
			if err := os.WriteFile(filepath.Join(filepath.Dir(out), file), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		removeEmpty(created)
		_, outErr := os.Stat(out)
		_, aboveErr := os.Stat(filepath.Join(there, "a"))
		_, thereErr := os.Stat(there)
		if os.IsNotExist(outErr) != (file != "out/train.jsonl") || os.IsNotExist(aboveErr) != (file == "") || thereErr != nil {
			t.Errorf("with %q: %v; %v; %v", file, outErr, aboveErr, thereErr)
		}
		if err := os.RemoveAll(filepath.Join(there, "a")); err != nil {
			t.Fatal(err)
		}
	}
	// What was there before stays.
	if created, err := makeFolders(there); err != nil || len(created) != 0 {
		t.Errorf("made %v (%v) of a folder that is there", created, err)
	}
}

// A damaged checkpoint that a run went back behind does not count among those kept: the one just written would be removed.
func TestRotationCountsNoNewerCheckpoint(t *testing.T) {
	out := t.TempDir()
	for _, n := range []int{5, 10, 15, 90} {
		if err := os.Mkdir(checkpointFolder(out, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	j := &job{recipe: configs.Recipe{Out: out, Checkpoint: configs.Checkpoint{Keep: 1}}}
	if err := j.rotate(15); err != nil {
		t.Fatal(err)
	}
	if got, err := checkpoints(out); err != nil || !slices.Equal(got, []int{90, 15}) {
		t.Errorf("left %v (%v), expected 90 and 15", got, err)
	}
}
