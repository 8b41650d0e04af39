package schemas

// A Push is slices of one plan that ClickHouse is to compute itself, from the files of one version of an
// event type's history.
type Push struct {
	Version int64 // of the type's table
	Slices  []PushedSlice
	Files   []string  // base names of the files to read; nil: all of the slices' dates
	Rows    []FileRow // that are left out; or, with Only, that are taken, and no others
	Only    bool
}

// A PushedSlice is one slice of a Push.
type PushedSlice struct {
	ID   uint64
	Date int32  // days since 1970-01-01
	Rows uint64 // that the slice is of: ClickHouse must find as many, or it does not read what we do
}

// A FileRow is a row of a file of history, by the file's base name, which no two files share.
type FileRow struct {
	File string
	Row  uint64 // from 0
}

// Pushed is what became of a slice that was pushed down.
type Pushed struct {
	Events uint64 // that the view takes
	Groups uint64 // in its table
}
