"""The paper's formulas: guidance, saliency, schedule."""
