//go:build !windows

package atomicfile

import "github.com/google/renameio/v2"

func create(dir, path string) (Pending, error) {
	return renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(Mode), renameio.WithExistingPermissions())
}
