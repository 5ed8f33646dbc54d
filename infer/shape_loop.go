package infer

type loopStage struct{ growing }

func (g *loopStage) push(piece string) (string, bool) {
	g.text += piece
	return g.show(len(g.text)), false
}
func (g *loopStage) flush() (string, bool) { return g.show(len(g.text)), false }
