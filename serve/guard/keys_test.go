package guard

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func addKey(t *testing.T, path, name string, l Limits) string {
	t.Helper()
	secret, err := AddKey(path, Key{Name: name, Limits: l, Created: time.Unix(1_700_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	ann := addKey(t, path, "ann", Limits{RequestsPerMinute: 60, TokensPerDay: 1000, Concurrent: 2})
	bob := addKey(t, path, "bob@work", Limits{})
	if form := regexp.MustCompile(`^autodev_[a-z2-7]{32}$`); !form.MatchString(ann) || !form.MatchString(bob) || ann == bob {
		t.Errorf("keys %q and %q", ann, bob)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: expected mode 0600", info.Mode(), err)
	}
	content, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(content), strings.TrimPrefix(ann, keyPrefix)) {
		t.Errorf("the file has the key itself, or %v", err)
	}
	keys, err := ReadKeys(path)
	if err != nil || len(keys) != 2 || keys[0].Name != "ann" || keys[0].Limits != (Limits{60, 1000, 2}) || !keys[0].Created.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := AddKey(path, Key{Name: "ann"}); err == nil || !strings.Contains(err.Error(), "already has a key named ann") {
		t.Errorf("the same name again: %v", err)
	}
	if err := RevokeKey(path, "eve"); err == nil || !strings.Contains(err.Error(), `has no key named "eve"`) {
		t.Errorf("revoking what is not there: %v", err)
	}
	if err := RevokeKey(path, "ann"); err != nil {
		t.Fatal(err)
	}
	if err := RevokeKey(path, "bob@work"); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(path); err != nil || len(keys) != 0 {
		t.Errorf("%+v, %v after both were revoked", keys, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%v: expected the file and nothing else", entries)
	}
	if err := RevokeKey(filepath.Join(t.TempDir(), "none"), "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestKeyFileLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	addKey(t, path, "ann", Limits{})
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AddKey(path, Key{Name: "bob"}); err == nil || !strings.Contains(err.Error(), "are being changed by another command") {
		t.Errorf("locked: %v", err)
	}
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Errorf("another's lock is gone: %v", err)
	}
}

func TestBadKeyFile(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for content, want := range map[string]string{
		``:                                 "expected a file of keys",
		`[]`:                               "expected a file of keys",
		`{"version":2,"keys":[]}`:          "version: found 2, expected 1",
		`{"version":1,"keys":[],"more":1}`: `unknown field "more"`,
		`{"version":1,"keys":[]} {}`:       "found more",
		`{"version":1,"keys":[{"name":"a b","sha256":"` + hash + `"}]}`:                                               "keys[0]: name",
		`{"version":1,"keys":[{"name":"a","sha256":"abcd"}]}`:                                                         "keys[0]: sha256",
		`{"version":1,"keys":[{"name":"a","sha256":"` + strings.Repeat("x", 64) + `"}]}`:                              "keys[0]: sha256",
		`{"version":1,"keys":[{"name":"a","sha256":"` + hash + `"},{"name":"a","sha256":"` + hash + `"}]}`:            "a is there twice",
		`{"version":1,"keys":[{"name":"a","sha256":"` + hash + `","limits":{"concurrent":-1}}]}`:                      "-1 at once",
		`{"version":1,"keys":[{"name":"a","sha256":"` + hash + `","limits":{"requests_per_minute":1e99}}]}`:           "expected a file of keys",
		`{"version":1,"keys":[{"name":"a","sha256":"` + hash + `","limits":{"requests_per_minute":1,"extra":true}}]}`: "unknown field",
	} {
		if _, err := parseKeys([]byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", content, err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(emptyKeys), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o620); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeys(path); err == nil || !strings.Contains(err.Error(), "has mode 0620") {
		t.Errorf("a file that the group may write: %v", err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(emptyKeys))
	f.Add([]byte(`{"version":1,"keys":[{"name":"a","sha256":"` + strings.Repeat("ab", 32) + `","created":"2026-01-01T00:00:00Z","limits":{"concurrent":3}}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		keys, err := parseKeys(content)
		for _, k := range keys {
			if err == nil && (!keyName.MatchString(k.Name) || k.Limits.check() != nil) {
				t.Errorf("accepted %+v", k)
			}
		}
	})
}

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestKeysFollowTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	ann := addKey(t, path, "ann", Limits{Concurrent: 1})
	var log bytes.Buffer
	k, err := OpenKeys(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{time.Now()}
	k.now = c.now
	a := k.Find(ann)
	if a == nil || a.Name != "ann" || k.Len() != 1 {
		t.Fatalf("%+v", a)
	}
	for _, wrong := range []string{"", "autodev_", ann + "x", ann[:len(ann)-1], strings.ToUpper(ann)} {
		if k.Find(wrong) != nil {
			t.Errorf("%q was taken for a key", wrong)
		}
	}
	if _, err := a.Begin(); err != nil {
		t.Fatal(err)
	}
	bob := addKey(t, path, "bob", Limits{})
	if k.Find(bob) != nil {
		t.Error("the file was read again within a second")
	}
	c.t = c.t.Add(2 * time.Second)
	if k.Find(bob) == nil || k.Find(ann) != a {
		t.Error("after a second bob is known, and ann's account is the same")
	}
	if _, err := k.Find(ann).Begin(); err == nil {
		t.Error("reading again forgot ann's request under way")
	}
	if err := RevokeKey(path, "ann"); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(); err != nil || k.Find(ann) != nil || k.Find(bob) == nil {
		t.Errorf("ann's key was revoked: %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.t = c.t.Add(2 * time.Second)
		if k.Find(bob) == nil {
			t.Error("a broken file revoked bob's key")
		}
	}
	if n := strings.Count(log.String(), "cannot be read"); n != 1 {
		t.Errorf("%d log records of the broken file, expected 1\n%s", n, &log)
	}
	if strings.Contains(log.String(), bob) || strings.Contains(log.String(), ann) {
		t.Error("a key is in the log")
	}
	// A new key under an old name is another account.
	if err := os.WriteFile(path, []byte(emptyKeys), 0o600); err != nil {
		t.Fatal(err)
	}
	again := addKey(t, path, "bob", Limits{})
	if err := k.Reload(); err != nil || k.Find(bob) != nil || k.Find(again) == nil {
		t.Errorf("bob's new key: %v", err)
	}
}

func TestLimits(t *testing.T) {
	c := &clock{time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC)}
	a := &Account{Name: "ann", now: c.now}
	a.set(Key{Limits: Limits{RequestsPerMinute: 3, TokensPerDay: 100, Concurrent: 2}})
	begin := func(want string, after time.Duration) func() {
		t.Helper()
		end, err := a.Begin()
		if want == "" {
			if err != nil {
				t.Fatal(err)
			}
			return end
		}
		var limit *LimitError
		if !errors.As(err, &limit) || !strings.Contains(limit.Reason, want) || limit.RetryAfter != after {
			t.Fatalf("%+v, expected %q after %v", err, want, after)
		}
		return nil
	}
	one, two := begin("", 0), begin("", 0)
	begin("2 requests under way, and may have 2", time.Second)
	one()
	one() // a second end counts nothing
	three := begin("", 0)
	begin("under way", time.Second)
	two()
	three()
	begin("3 requests a minute", 20*time.Second)
	c.t = c.t.Add(15 * time.Second)
	begin("3 requests a minute", 5*time.Second)
	c.t = c.t.Add(-time.Hour) // set back: nothing is lost
	begin("3 requests a minute", 5*time.Second)
	c.t = c.t.Add(5 * time.Second)
	begin("", 0)()
	c.t = time.Date(2026, 3, 1, 23, 59, 50, 0, time.UTC)
	a.Spend(60)
	a.Spend(-1000)
	begin("", 0)()
	a.Spend(60)
	begin("used its 100 tokens of today", 10*time.Second)
	c.t = c.t.Add(10 * time.Second)
	begin("", 0)()
	a.set(Key{})
	for range 100 {
		begin("", 0)
		a.Spend(1 << 40)
	}
}
