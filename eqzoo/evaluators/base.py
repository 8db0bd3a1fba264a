class Evaluator: pass
