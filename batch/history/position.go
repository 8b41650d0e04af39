package history

import "watershed/schemas"

// Position is up to where the snapshot holds the log that app names; the zero Position if nothing
// of it was archived.
func (s *Snapshot) Position(app string) schemas.Position {
	seq, ok := s.Txns[app]
	if !ok || seq <= 0 {
		return schemas.Position{}
	}
	return schemas.Position{Seq: uint64(seq), Hash: uint64(s.Txns[app+hashSuffix])}
}
