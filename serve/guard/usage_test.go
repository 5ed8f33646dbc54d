package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// server is a run of one: the keys of a file and what they have used.
func server(t *testing.T, dir string, c *clock) (*Keys, *Usage) {
	t.Helper()
	k, err := OpenKeys(filepath.Join(dir, "keys.json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k.now = c.now
	for _, a := range k.accounts {
		a.now = c.now
	}
	u, err := OpenUsage(filepath.Join(dir, "usage.json"), k)
	if err != nil {
		t.Fatal(err)
	}
	return k, u
}

// kill ends u without a last word.
func kill(u *Usage) {
	close(u.stop)
	<-u.done
}

// TestUsageOutlivesServer: a restart, orderly or not, forgets nothing that was saved; a new day and a new key begin anew.
func TestUsageOutlivesServer(t *testing.T) {
	dir := t.TempDir()
	file, usage := filepath.Join(dir, "keys.json"), filepath.Join(dir, "usage.json")
	ann, bob := addKey(t, file, "ann", Limits{TokensPerDay: 100}), addKey(t, file, "bob", Limits{})
	c := &clock{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	k, u := server(t, dir, c)
	k.Find(ann).Spend(60)
	k.Find(bob).Spend(7)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(usage); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: expected mode 0600", info, err)
	}
	content, err := os.ReadFile(usage)
	if err != nil || strings.Contains(string(content), strings.TrimPrefix(ann, keyPrefix)) {
		t.Errorf("the file has the key itself, or %v", err)
	}

	k, u = server(t, dir, c)
	k.Find(ann).Spend(30)
	if err := u.save(); err != nil {
		t.Fatal(err)
	}
	k.Find(ann).Spend(5)
	kill(u)

	k, u = server(t, dir, c)
	if f, _ := k.used(); len(f.Keys) != 2 || f.Keys[0].Tokens != 90 || f.Keys[1].Tokens != 7 {
		t.Errorf("after two restarts: %+v", f)
	}
	if _, err := k.Find(ann).Begin(); err != nil {
		t.Errorf("90 of 100: %v", err)
	}
	k.Find(ann).Spend(10)
	var limit *LimitError
	if _, err := k.Find(ann).Begin(); !errors.As(err, &limit) || limit.RetryAfter != 12*time.Hour {
		t.Errorf("100 of 100: %v", err)
	}

	kill(u)

	// A new key of an old name has used nothing.
	if err := RevokeKey(file, "bob"); err != nil {
		t.Fatal(err)
	}
	addKey(t, file, "bob", Limits{TokensPerDay: 5})
	if k, u = server(t, dir, c); k.accounts["bob"].tokens != 0 || k.accounts["ann"].tokens != 90 {
		t.Errorf("ann has used %d, the new bob %d", k.accounts["ann"].tokens, k.accounts["bob"].tokens)
	}
	kill(u)

	c.t = c.t.Add(12 * time.Hour)
	k, u = server(t, dir, c)
	if _, err := k.Find(ann).Begin(); err != nil || k.accounts["ann"].tokens != 0 {
		t.Errorf("the next day: %v, %d tokens", err, k.accounts["ann"].tokens)
	}
	k.Find(ann).Spend(1)
	c.t = c.t.Add(24 * time.Hour)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(usage); err != nil || !strings.Contains(string(content), "2026-03-03") || strings.Contains(string(content), "ann") {
		t.Errorf("%s %v: expected nothing of the day before", content, err)
	}
}

// TestUsageSavedByItself: nobody has to ask.
func TestUsageSavedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ann := addKey(t, filepath.Join(dir, "keys.json"), "ann", Limits{TokensPerDay: 100})
		k, u := server(t, dir, &clock{time.Now()})
		k.Find(ann).Spend(41)
		time.Sleep(saveEvery + time.Second)
		synctest.Wait()
		if content, err := os.ReadFile(u.path); err != nil || !strings.Contains(string(content), `"tokens": 41`) {
			t.Errorf("%s %v, expected 41 tokens", content, err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestUsageWithoutLimits: there is no file as long as nobody has a limit.
func TestUsageWithoutLimits(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keys.json")
	ann := addKey(t, file, "ann", Limits{})
	k, u := server(t, dir, &clock{time.Now()})
	k.Find(ann).Spend(50)
	if err := u.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(u.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, expected no file", err)
	}
	addKey(t, file, "bob", Limits{TokensPerDay: 1})
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(u.path); err != nil || !strings.Contains(string(content), `"tokens": 50`) {
		t.Errorf("%s %v: what was used before there was a limit counts", content, err)
	}
}

// TestUsageUnusable: what cannot be read or written is said at once, and once.
func TestUsageUnusable(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for content, want := range map[string]string{
		`no JSON`: "expected what autodev serve keeps",
		`[]`:      "expected what autodev serve keeps",
		emptyKeys: "day: found",
		`{"version":2,"day":"2026-01-01","keys":[]}`:                                                 "version: found 2, expected 1",
		`{"version":1,"day":"today","keys":[]}`:                                                      `day: found "today"`,
		`{"version":1,"day":"2026-01-01","keys":[],"more":1}`:                                        `unknown field "more"`,
		`{"version":1,"day":"2026-01-01","keys":[]}{}`:                                               "found more",
		`{"version":1,"day":"2026-01-01","keys":[{"name":"a","sha256":"ab","tokens":1}]}`:            "keys[0]: sha256",
		`{"version":1,"day":"2026-01-01","keys":[{"name":"a","sha256":"` + hash + `","tokens":-1}]}`: "keys[0]: tokens: found -1",
	} {
		dir := t.TempDir()
		addKey(t, filepath.Join(dir, "keys.json"), "ann", Limits{TokensPerDay: 100})
		k, err := OpenKeys(filepath.Join(dir, "keys.json"), nil)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "usage.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenUsage(path, k); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, expected %q", content, err, want)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != content {
			t.Errorf("%s became %s (%v)", content, now, err)
		}
	}

	dir := t.TempDir()
	ann := addKey(t, filepath.Join(dir, "keys.json"), "ann", Limits{TokensPerDay: 100})
	var log bytes.Buffer
	k, err := OpenKeys(filepath.Join(dir, "keys.json"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUsage(filepath.Join(dir, "none", "usage.json"), k); err == nil || !strings.Contains(err.Error(), "usage of API keys") {
		t.Errorf("a folder that is not there: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	u, err := OpenUsage(filepath.Join(dir, "state", "usage.json"), k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	k.Find(ann).Spend(1)
	for range 3 {
		if u.save() == nil {
			t.Error("saved into a folder that is gone")
		}
	}
	if n := strings.Count(log.String(), "cannot be kept"); n != 1 {
		t.Errorf("%d log records, expected 1\n%s", n, &log)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Errorf("the folder is back: %v", err)
	}
}

func FuzzParseUsage(f *testing.F) {
	f.Add([]byte(`{"version":1,"day":"2026-01-01","keys":[{"name":"a","sha256":"` + strings.Repeat("ab", 32) + `","tokens":5}]}`))
	f.Add([]byte(emptyKeys))
	f.Fuzz(func(t *testing.T, content []byte) {
		u, err := parseUsage(content)
		if err != nil {
			return
		}
		b, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseUsage(b); err != nil {
			t.Errorf("%s, read as %+v, is refused when written: %v", content, u, err)
		}
	})
}
