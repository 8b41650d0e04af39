package schemas

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// MarshalJSON writes the canonical form: equal sets give equal bytes.
func (s Set) MarshalJSON() ([]byte, error) {
	type plain Set // without this method
	p := plain{Events: slices.Clone(s.Events), Views: make([]*View, len(s.Views))}
	for i, v := range s.Views {
		one := *v
		if one.Dimensions == nil {
			one.Dimensions = []Definition{}
		}
		p.Views[i] = &one
	}
	if p.Events == nil {
		p.Events = []*Event{}
	}
	slices.SortFunc(p.Events, func(a, b *Event) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Views, func(a, b *View) int { return cmp.Compare(a.Name, b.Name) })
	return json.Marshal(p)
}

// ParseSet reads what MarshalJSON wrote. An unknown key is an error: whoever wrote it knew
// something that this program does not.
func ParseSet(b []byte) (*Set, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := new(Set)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("parse definitions: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("parse definitions: something follows them")
	}
	if slices.Contains(s.Events, nil) || slices.Contains(s.Views, nil) {
		return nil, fmt.Errorf("parse definitions: a definition is null")
	}
	for _, e := range s.Events {
		for _, f := range e.Fields {
			if f.Type == (Type{}) {
				return nil, fmt.Errorf("parse definitions: field %q of event %q has no type", f.Name, e.Name)
			}
		}
	}
	s.sort()
	return s, nil
}

// Hash is the SHA-256 of the canonical form, 64 hexadecimal digits.
func (s *Set) Hash() string {
	b, err := s.MarshalJSON()
	if err != nil {
		panic(err) // a Set holds text and numbers only
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

//go:embed examples
var examples embed.FS

// Examples holds the definitions that ship with Watershed, one directory per example.
func Examples() fs.FS {
	sub, err := fs.Sub(examples, "examples")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	return sub
}
