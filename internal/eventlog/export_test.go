package eventlog

// OnStep has f called between the steps of Anew.
func (l *Log) OnStep(f func(step string)) { l.step = f }
