//go:build !linux

package packed

func hugePagesFor(int64) bool { return false }

func anonymous(int) (data []byte, free func() error, err error) { return nil, nil, ErrNoHugePages }

func forget([]byte) {}
