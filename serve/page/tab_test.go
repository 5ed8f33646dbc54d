package page_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tab is a page in a browser without a screen, and what was wrong with it.
type tab struct {
	t      *testing.T
	ctx    context.Context
	origin string
	// expected is part of a message in the console that is no problem; "": there is none.
	expected string

	mu       sync.Mutex
	requests int
	problems []string
}

// open shows url in Chromium, or skips the test where there is none.
func open(t *testing.T, url string) *tab { return openExpecting(t, url, "") }

// openExpecting is open for a page that does not get what it asks for at first.
func openExpecting(t *testing.T, url, expected string) *tab {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no chromium on this machine (Debian's package chromium has it): the page is not driven")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 860),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("force-color-profile", "srgb"))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx, origin: url, expected: expected}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	b.run(chromedp.Navigate(url + "/"))
	if expected != "" {
		return b
	}
	b.until(serving)
	b.run(do(`document.getElementById("code").focus()`)) // without a mouse the page does not do it by itself
	return b
}

// listen notes errors of the page, and requests that leave its origin.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, b.origin+"/") && !strings.HasPrefix(u, "data:image/svg+xml,") {
			b.problems = append(b.problems, "a request to "+u)
		}
		b.requests++
	case *cdpruntime.EventExceptionThrown:
		b.problems = append(b.problems, "exception: "+e.ExceptionDetails.Text)
	case *cdpruntime.EventConsoleAPICalled:
		b.problems = append(b.problems, "console: "+string(e.Type))
	case *log.EventEntryAdded:
		if b.expected == "" || !strings.Contains(e.Entry.Text, b.expected) {
			b.problems = append(b.problems, "log: "+e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

// well fails the test where something was wrong.
func (b *tab) well() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Error(p)
	}
	if b.requests == 0 {
		b.t.Error("no request was seen at all")
	}
}

func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// value returns what an expression of JavaScript is.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// do runs JavaScript.
func do(script string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](script)
}

// until waits for an expression to be true.
func (b *tab) until(expression string) {
	b.t.Helper()
	for range 1500 {
		if value[bool](b, "Boolean("+expression+")") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("never true: %s\n%s", expression, value[string](b, "document.body.innerText"))
}

// ctrl presses a key with Ctrl.
func (b *tab) ctrl(key string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(key, chromedp.KeyModifiers(kb.ModifierCtrl)))
}

// shot stores a picture where AUTODEV_SCREENSHOTS names a folder.
func (b *tab) shot(name string, width, height int64, dark bool) {
	b.t.Helper()
	dir := os.Getenv("AUTODEV_SCREENSHOTS")
	if dir == "" {
		return
	}
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	media := func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}
	b.run(chromedp.EmulateViewport(width, height), chromedp.Func(media), chromedp.Sleep(150*time.Millisecond))
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

const (
	text    = `document.getElementById("code").value`
	serving = `document.getElementById("state").textContent.startsWith("Serving")`
	ghost   = `(document.querySelector("#mirror .ghost") || {textContent: ""}).textContent`
)
