"""Pictures as people keep them: files and what they tell, grids, saliency laid over them."""
