package train

import (
	"fmt"
	"io"
	"strings"
)

// WriteTable prints the plan for people, a column for each kind of device with and without gradient checkpointing.
func (m *Memory) WriteTable(w io.Writer) error {
	var b strings.Builder
	name := m.Model
	if name == "" {
		name = "a new model"
	}
	fmt.Fprintf(&b, "%s: %s parameters, %s trained (%s)\n", name, countText(m.Parameters), countText(m.Trained), m.Method)
	fmt.Fprintf(&b, "micro-batch %d of %d tokens, accumulation %d\n\n", m.MicroBatch, m.Sequence, m.Accumulation)
	row := func(name string, cell func(c *MemoryColumn) string) {
		fmt.Fprintf(&b, "%-22s", name)
		for i := range m.Columns {
			fmt.Fprintf(&b, "  %10s", cell(&m.Columns[i]))
		}
		b.WriteByte('\n')
	}
	size := func(name string, bytes func(c *MemoryColumn) int64) {
		row(name, func(c *MemoryColumn) string { return bytesText(bytes(c)) })
	}
	row("device", func(c *MemoryColumn) string { return string(c.Device) })
	row("precision", func(c *MemoryColumn) string { return string(c.Precision) })
	row("gradient checkpointing", func(c *MemoryColumn) string {
		s := "off"
		if c.Checkpointing {
			s = "on"
		}
		if c.Recipe {
			s = "*" + s
		}
		return s
	})
	size("weights", func(c *MemoryColumn) int64 { return c.Weights })
	size("float32 masters", func(c *MemoryColumn) int64 { return c.Masters })
	row("gradients", func(c *MemoryColumn) string {
		if c.Gradients == 0 {
			return "in place"
		}
		return bytesText(c.Gradients)
	})
	size("optimiser", func(c *MemoryColumn) int64 { return c.Optimizer })
	size("inputs, outputs", func(c *MemoryColumn) int64 { return c.InputsOutputs })
	size("activations", func(c *MemoryColumn) int64 { return c.Activations })
	size("work space", func(c *MemoryColumn) int64 { return c.Workspace })
	size("total", func(c *MemoryColumn) int64 { return c.Total })
	size("beside the plan, about", func(c *MemoryColumn) int64 { return c.Beside })
	row("memory", func(c *MemoryColumn) string {
		if c.Memory == 0 {
			return "not known"
		}
		return bytesText(c.Memory)
	})
	row("largest micro-batch", func(c *MemoryColumn) string {
		switch {
		case c.LargestMicroBatch == nil:
			return "-"
		case *c.LargestMicroBatch == 0:
			return "none fits"
		}
		return fmt.Sprint(*c.LargestMicroBatch)
	})
	b.WriteString("\n* as the recipe has it\n")
	for i := range m.Columns {
		c := &m.Columns[i]
		if c.Device == "cuda" && c.Memory == 0 && c.Recipe {
			b.WriteString("the largest micro-batch on cuda needs --memory, such as --memory 80GB\n")
		}
		if c.Recipe && len(c.Kept) > 0 {
			var kept []string
			for _, k := range c.Kept {
				kept = append(kept, fmt.Sprintf("%s (%d)", k.Name, k.Blocks))
			}
			fmt.Fprintf(&b, "kept by blocks on %s: %s\n", c.Device, strings.Join(kept, ", "))
		}
		if !c.Recipe || c.LargestMicroBatch == nil || len(c.Advice) == 0 && *c.LargestMicroBatch >= m.MicroBatch {
			continue
		}
		fmt.Fprintf(&b, "\nA micro-batch of %d does not fit into the %s of %s", m.MicroBatch, bytesText(c.Memory), c.Device)
		if len(c.Advice) == 0 {
			b.WriteString("; neither would one sequence of 64 tokens with gradient checkpointing")
			if strings.HasPrefix(m.Method, "lora") || m.Model != "" {
				fmt.Fprintf(&b, " and adapters of rank %d", smallRank)
			}
			fmt.Fprintf(&b, " (the weights alone are %s).\n", bytesText(c.Weights))
			continue
		}
		b.WriteString(". What would:\n")
		for _, s := range c.Advice {
			fmt.Fprintf(&b, "  %s  (%s)\n", setsText(s.Sets), bytesText(s.Total))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// setsText writes settings as the command line takes them.
func setsText(sets []string) string {
	var words []string
	for _, s := range sets {
		if strings.ContainsAny(s, " {}") {
			s = "'" + s + "'"
		}
		words = append(words, "--set "+s)
	}
	return strings.Join(words, " ")
}

func countText(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.4g billion", float64(n)/1e9)
	}
	return fmt.Sprintf("%.4g million", float64(n)/1e6)
}

// bytesText writes a size in three or four digits, in decimal units as drivers and shops do.
func bytesText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}} {
		if n >= u.size {
			return fmt.Sprintf("%.*f %s", map[bool]int{true: 2, false: 1}[n < 10*u.size], float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
