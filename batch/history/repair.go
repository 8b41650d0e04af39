package history

import "path/filepath"

// removal is the action that removes a live file.
func (t *Table) removal(f File) *remove {
	return &remove{
		Path: encodePath(f.Path), DeletionTimestamp: t.now().UnixMilli(), DataChange: true, ExtendedMetadata: true,
		PartitionValues: map[string]string{dateColumn: formatDate(f.Date)}, Size: f.Size,
	}
}

// onDisk is where a file of the table lies.
func (t *Table) onDisk(f File) string { return filepath.Join(t.dir, filepath.FromSlash(f.Path)) }
