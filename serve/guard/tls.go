package guard

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a certificate and its key, in PEM files. It follows them: tools that renew certificates replace the files.
type Certificate struct {
	certFile, keyFile string
	logger            *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]fs.FileInfo
	looked  time.Time
	failure string
}

// OpenCertificate reads a certificate chain and its key. Later versions that cannot be read change nothing and are logged; logger
// may be nil.
func OpenCertificate(certFile, keyFile string, logger *slog.Logger) (*Certificate, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	c := &Certificate{certFile: certFile, keyFile: keyFile, logger: logger, now: time.Now}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// Config returns what a listener needs. HTTP/2 is left out: it has nothing to give to the few connections of an editor.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		if c.changed() {
			if err := c.read(); err == nil {
				c.failure = ""
				c.logger.Info("TLS certificate read again", "file", c.certFile)
			} else if c.failure != err.Error() {
				c.failure = err.Error()
				c.logger.Error("TLS certificate: the files cannot be read; the one read before stays in use", "error", err)
			}
		}
	}
	return c.current, nil
}

func (c *Certificate) changed() bool {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil || !os.SameFile(info, c.seen[i]) || !info.ModTime().Equal(c.seen[i].ModTime()) || info.Size() != c.seen[i].Size() {
			return true
		}
	}
	return false
}

func (c *Certificate) read() error {
	certInfo, err1 := os.Stat(c.certFile)
	keyInfo, err2 := os.Stat(c.keyFile)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("TLS: %s and %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.seen, c.looked = &pair, [2]fs.FileInfo{certInfo, keyInfo}, c.now()
	return nil
}
