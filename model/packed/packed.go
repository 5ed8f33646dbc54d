package packed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"autodev/internal/sizedfile"
	"autodev/model"
)

const (
	// File is the name of the weight file.
	File = "weights.autodev"
	// Method is the quant_method of quantization_config.
	Method = "autodev"
	// Version is the one version of the format.
	Version = 1
	// Float32 is the format of parameters that are plain tensors.
	Float32 = "float32"

	align        = 64
	configKey    = "quantization_config"
	maxConfig    = 16 << 20
	metaFormat   = "format"
	metaVersion  = "version"
	metaTensors  = "tensors"
	maxParts     = 4
	partOf       = ":"
	maxTotalSize = 1 << 46
)

// Quantization is the quantization_config of a packed folder's config.json.
type Quantization struct {
	Method      string       `json:"quant_method"` // Method
	Version     int          `json:"version"`      // Version
	Weights     string       `json:"weights"`      // the format most matrices have: bf16, int8, int4
	Group       int          `json:"group_size"`   // weights that share a scale; 0 for none
	Bits        float64      `json:"bits"`         // per weight of the matrices, scales included
	Calibration *Calibration `json:"calibration,omitempty"`
	File        string       `json:"file"` // File
	Bytes       int64        `json:"bytes"`
	SHA256      string       `json:"sha256"`
}

// Calibration says how the codes were found, when not by rounding to the nearest.
type Calibration struct {
	Method    string `json:"method"`
	Documents int    `json:"documents"`
	Tokens    int    `json:"tokens"`
}

// Entry describes one parameter.
type Entry struct {
	Name   string `json:"-"`
	Format string `json:"format"` // Float32, or what its parts mean
	Shape  []int  `json:"shape"`
	Parts  []Part `json:"parts,omitempty"` // none for Float32
}

// Part is a range of bytes of a packed parameter.
type Part struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// bytes returns the size of the entry in the file.
func (e Entry) bytes() int64 {
	if e.Format == Float32 {
		n := int64(4)
		for _, d := range e.Shape {
			n *= int64(d)
		}
		return n
	}
	var n int64
	for _, p := range e.Parts {
		n += padded(p.Size)
	}
	return n
}

func padded(n int64) int64 { return (n + align - 1) / align * align }

// Is reports whether the model folder fsys is a packed one, by its config.json.
func Is(fsys fs.FS) bool {
	b, err := sizedfile.ReadFS(fsys, model.ConfigFile, model.ConfigFile, maxConfig)
	if err != nil {
		return false
	}
	_, q, err := split(b)
	return err == nil && q != nil
}

// ReadConfig reads the config.json of the packed folder fsys; dir stands for the folder in errors.
func ReadConfig(fsys fs.FS, dir string) (model.Config, Quantization, error) {
	b, err := sizedfile.ReadFS(fsys, model.ConfigFile, path.Join(dir, model.ConfigFile), maxConfig)
	if err != nil {
		return model.Config{}, Quantization{}, err
	}
	c, q, err := parseConfig(b, path.Join(dir, model.ConfigFile))
	return c, q, err
}

// split takes quantization_config out of a config.json; nil when it is not there or another method's.
func split(b []byte) (rest, quantization []byte, err error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, nil, err
	}
	var m struct {
		Method string `json:"quant_method"`
	}
	q, ok := raw[configKey]
	if !ok || json.Unmarshal(q, &m) != nil || m.Method != Method {
		return b, nil, nil
	}
	delete(raw, configKey)
	rest, err = json.Marshal(raw)
	return rest, q, err
}

func parseConfig(b []byte, name string) (c model.Config, q Quantization, err error) {
	rest, raw, err := split(b)
	if err != nil {
		return c, q, fmt.Errorf("%s: %w", name, err)
	}
	if raw == nil {
		return c, q, fmt.Errorf("%s: %s: not of the method %q, expected the folder of a packed model", name, configKey, Method)
	}
	if c, err = model.ParseConfig(rest, name); err != nil {
		return c, q, err
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return c, q, fmt.Errorf("%s: %s: %w", name, configKey, err)
	}
	// Before everything else: a later version may have other fields.
	if v.Version != Version {
		return c, q, fmt.Errorf("%s: %s.version: %d, expected %d", name, configKey, v.Version, Version)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return c, q, fmt.Errorf("%s: %s: %w", name, configKey, err)
	}
	switch {
	case q.File != File:
		return c, q, fmt.Errorf("%s: %s.file: %q, expected %q", name, configKey, q.File, File)
	case q.Weights == "":
		return c, q, fmt.Errorf("%s: %s.weights: missing, expected the format of the weights", name, configKey)
	case q.Bytes < 1 || q.Bytes > maxTotalSize:
		return c, q, fmt.Errorf("%s: %s.bytes: %d, expected the size of %s", name, configKey, q.Bytes, File)
	case len(q.SHA256) != 64:
		return c, q, fmt.Errorf("%s: %s.sha256: %q, expected 64 hexadecimal digits", name, configKey, q.SHA256)
	}
	return c, q, nil
}

// check compares the entries with the parameter table of c.
func check(c model.Config, entries map[string]Entry) error {
	for _, p := range c.Params() {
		e, ok := entries[p.Name]
		switch {
		case !ok:
			return fmt.Errorf("tensor %s: missing, expected shape %v", p.Name, p.Shape)
		case !slices.Equal(e.Shape, p.Shape):
			return fmt.Errorf("tensor %s: shape %v, expected %v", p.Name, e.Shape, p.Shape)
		case e.Format == Float32 && len(e.Parts) > 0:
			return fmt.Errorf("tensor %s: %d parts, expected none for %s", p.Name, len(e.Parts), e.Format)
		case e.Format != Float32 && (len(e.Parts) == 0 || len(e.Parts) > maxParts):
			return fmt.Errorf("tensor %s: %d parts of %q, expected 1 to %d", p.Name, len(e.Parts), e.Format, maxParts)
		case e.Format != Float32 && p.Kind != model.Matrix && p.Kind != model.Embedding:
			return fmt.Errorf("tensor %s: format %q, expected %s", p.Name, e.Format, Float32)
		}
		for i, part := range e.Parts {
			if part.Name == "" || part.Size < 0 || part.Size > maxTotalSize || slices.ContainsFunc(e.Parts[:i], func(q Part) bool { return q.Name == part.Name }) {
				return fmt.Errorf("tensor %s: part %q of %d bytes, expected different names and sizes", p.Name, part.Name, part.Size)
			}
		}
	}
	if n := len(c.Params()); len(entries) != n {
		return fmt.Errorf("%d tensors, expected the %d of the configuration", len(entries), n)
	}
	return nil
}
