package infer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"autodev/model/packed"
)

// HugePages says whether the weights of a packed folder are copied out of their mapped file, into memory of the process's own
// in huge pages: every token reads all of them, and small pages slow that down, most of all in virtual machines. Processes do
// not share a copy. Systems without huge pages use the mapped file always.
type HugePages string

const (
	// HugePagesAuto, the default, copies while the model is in use already, if there is plenty of memory.
	HugePagesAuto HugePages = "auto"
	// HugePagesOn copies before the model is ready.
	HugePagesOn HugePages = "on"
	// HugePagesOff leaves the weights where they are.
	HugePagesOff HugePages = "off"
)

// ParseHugePages reads the name of a mode; "" is HugePagesAuto.
func ParseHugePages(s string) (HugePages, error) {
	return parseName("huge_pages", HugePages(s), HugePagesAuto, []HugePages{HugePagesAuto, HugePagesOn, HugePagesOff})
}

// mover copies a model's mapped matrices one after the other. From then on products read the copy, which has the same bytes;
// those under way go on with the mapped one, which stays where it is until the model ends.
type mover struct {
	m      *Model
	source *mapped
	own    *packed.Own
	cancel context.CancelFunc
	done   chan struct{}
}

// move begins to copy the weights, and with HugePagesOn completes it, unless ctx ends before.
func (m *Model) move(ctx context.Context, source *mapped, mode HugePages) error {
	if mode == HugePagesOff {
		return nil
	}
	own, err := source.folder.Own()
	if errors.Is(err, packed.ErrNoHugePages) {
		slog.Debug("weights stay where their file is mapped", "reason", err)
		return nil
	}
	if err != nil {
		return err
	}
	// What goes on in the background is the model's, not the caller's.
	whole, cancel := context.WithCancel(context.WithoutCancel(ctx))
	v := &mover{m: m, source: source, own: own, cancel: cancel, done: make(chan struct{})}
	m.mover = v
	if mode == HugePagesOn {
		defer close(v.done)
		return v.run(ctx, func() bool { return false })
	}
	go func() {
		defer close(v.done)
		if err := v.run(whole, v.inUse); err != nil && whole.Err() == nil {
			// What is mapped is as good, only slower.
			slog.Warn("weights stay where their file is mapped", "error", err)
		}
	}()
	return nil
}

// inUse reports whether something runs on the model.
func (v *mover) inUse() bool {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	return v.m.users > 0
}

// run copies everything, in the order in which a forward pass reads it. Where yield says so it works a third of the time.
func (v *mover) run(ctx context.Context, yield func() bool) error {
	began := time.Now()
	between := func() error {
		if yield() {
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Since(began)):
			}
		}
		began = time.Now()
		return context.Cause(ctx)
	}
	var moved []*matrix
	for i := range v.m.program.steps {
		w := v.m.program.steps[i].weight
		if w == nil || slices.Contains(moved, w) {
			continue
		}
		moved = append(moved, w)
		if err := v.own.Fill(w.name, between); err != nil {
			return err
		}
		e, _ := v.source.folder.Entry(w.name)
		f, err := v.source.form(e, v.own.Bytes)
		if err != nil {
			return err
		}
		w.moved.Store(&f)
		v.own.ForgetParameter(w.name)
	}
	// Products that were under way have read mapped pages again.
	v.own.Forget()
	return nil
}

// stop ends the copying and returns when it has ended. A nil mover has.
func (v *mover) stop() {
	if v != nil {
		v.cancel()
		<-v.done
	}
}
