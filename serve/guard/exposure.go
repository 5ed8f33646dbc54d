package guard

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Exposure says how an address to listen on is protected.
type Exposure struct {
	Keys, TLS, Insecure bool
}

// Check refuses an address that others than this machine can reach when no keys protect it, unless that is insisted on. warning,
// unless it is empty, is for whoever starts the server. addr is "HOST:PORT" or "unix:PATH".
func (e Exposure) Check(addr string) (warning string, err error) {
	if loopbackAddr(addr) {
		return "", nil
	}
	switch {
	case !e.Keys && !e.Insecure:
		return "", fmt.Errorf("%s can be reached from other machines, and anybody there could use the model and read what it is asked: give --api-keys (and --tls-cert, --tls-key), listen on 127.0.0.1, or insist with --insecure", addr)
	case !e.Keys:
		return addr + " answers anybody who can reach it", nil
	case !e.TLS:
		return addr + " can be reached from other machines without TLS: keys and code can be read on the way, unless a proxy or tunnel encrypts it", nil
	}
	return "", nil
}

// loopbackAddr reports whether only this machine can connect to addr.
func loopbackAddr(addr string) bool {
	if strings.HasPrefix(addr, unixPrefix) {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
