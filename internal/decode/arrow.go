package decode

import "watershed/schemas"

func (d *Decoder) arrow(payload []byte, seq uint64) []schemas.Reject {
	return []schemas.Reject{d.reject(payload, seq, wholeMessage, ArrowStream+" is not read yet", Format{kind: arrowIPC})}
}
