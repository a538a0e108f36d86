# pROC's own bootstrap of the AUROC. Arguments: folder of rows.csv, replicates; prints seconds and limits as JSON.
suppressPackageStartupMessages(library(pROC))
arguments <- commandArgs(trailingOnly = TRUE)
rows <- read.csv(file.path(arguments[1], "rows.csv"))
set.seed(3)
begin <- proc.time()[["elapsed"]]
curve <- roc(rows$label, rows$score, levels = c(0, 1), direction = "<")
limits <- ci.auc(curve, method = "bootstrap", boot.n = as.integer(arguments[2]), boot.stratified = FALSE, progress = "none")
seconds <- proc.time()[["elapsed"]] - begin
cat(sprintf('{"seconds": %.17g, "limits": {"auroc": [%.17g, %.17g]}}\n', seconds, limits[1], limits[3]))
