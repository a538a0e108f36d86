# Golden values for tests/stats/test_golden_sets.py: 24 simulated data sets, evaluated by R packages.
# Run in this folder:  Rscript sets.R
# Writes sets_data.csv.gz (the data) and sets.csv (data set, name, value, and who computed it).
# A statistic that does not exist for a data set (a slope of separated classes, a variance of one patient) has no row.
suppressPackageStartupMessages({library(pROC); library(rms); library(epiR); library(boot)})

# Rows, rows with the outcome, decimals of the scores: ties, tiny classes, extreme prevalence, large.
plan <- data.frame(
  n = c(20, 30, 40, 50, 60, 80, 100, 100, 120, 149, 189, 200, 240, 300, 300, 400, 400, 500, 600, 800, 1000, 1000, 1500, 10000),
  events = c(8, 3, 20, 47, 5, 4, 50, 96, 30, 18, 32, 6, 60, 150, 294, 8, 100, 250, 30, 784, 20, 400, 225, 1500),
  decimals = c(1, 2, 0, 2, 3, 1, 0, 2, 1, 3, 3, 2, 1, 3, 2, 3, 0, 1, 3, 2, 2, 0, 3, 2)
)

draw <- function(set) {
  n <- plan$n[set]
  label <- sample(rep(c(1, 0), c(plan$events[set], n - plan$events[set])))
  score_a <- round(label * 1.1 + rnorm(n), plan$decimals[set])
  score_b <- round(label * 0.4 + 0.5 * score_a + rnorm(n), plan$decimals[set])
  offset <- qlogis(plan$events[set] / n)
  probability <- pmin(pmax(round(plogis(offset - 0.4 + 0.8 * score_a), 3), 0.001), 0.999)
  measured <- round(rnorm(n, 17, 4), 1)
  predicted <- round(5 + 0.72 * measured + rnorm(n, 0, 2.2), 1)
  data.frame(set, label, score_a, score_b, probability, measured, predicted)
}

rows <- list()
keep <- function(set, package, values) {
  values <- unlist(values)
  values <- values[is.finite(values)]
  if (length(values) == 0) return(invisible())
  source <- paste(package, packageVersion(package))
  rows[[length(rows) + 1]] <<- data.frame(set, name = names(values), value = sprintf("%.17g", values), source)
}

discrimination <- function(set, d) {
  curve <- function(part, score) roc(part$label, part[[score]], levels = c(0, 1), direction = "<")
  a <- curve(d, "score_a")
  b <- curve(d, "score_b")
  interval <- ci.auc(a, method = "delong")
  paired <- roc.test(a, b, method = "delong", paired = TRUE)
  keep(set, "pROC", list(
    auroc = as.numeric(auc(a)), auroc_variance = var(a, method = "delong"),
    auroc_ci_low = interval[1], auroc_ci_high = interval[3],
    paired_z = unname(paired$statistic), paired_p = paired$p.value,
    paired_ci_low = paired$conf.int[1], paired_ci_high = paired$conf.int[2],
    partial_auroc = as.numeric(auc(a, partial.auc = c(1, 0.8))),
    partial_auroc_middle = as.numeric(auc(a, partial.auc = c(0.9, 0.4))),
    partial_auroc_standardised = suppressWarnings(
      as.numeric(auc(a, partial.auc = c(1, 0.8), partial.auc.correct = TRUE)))
  ))
  second <- rank(d$label, ties.method = "first") %% 2 == 0
  unpaired <- roc.test(curve(d[!second, ], "score_a"), curve(d[second, ], "score_a"), method = "delong", paired = FALSE)
  keep(set, "pROC", list(unpaired_statistic = unname(unpaired$statistic), unpaired_df = unname(unpaired$parameter),
                         unpaired_p = unpaired$p.value))
}

calibration <- function(set, d) {
  validated <- tryCatch(val.prob(d$probability, d$label, pl = FALSE), error = function(e) NULL)
  if (!is.null(validated)) {
    keep(set, "rms", list(brier = validated[["Brier"]], ici = validated[["Eavg"]], e90 = validated[["E90"]],
                          emax = validated[["Emax"]], spiegelhalter_z = validated[["S:z"]],
                          spiegelhalter_p = validated[["S:p"]]))
  }
  logit <- qlogis(d$probability)
  precise <- glm.control(epsilon = 1e-15, maxit = 100)
  large <- glm(d$label ~ 1, offset = logit, family = binomial, control = precise)
  slope <- glm(d$label ~ logit, family = binomial, control = precise)
  # vcov takes the weights of the last step but one, which is 1e-8 away.
  standard_error <- function(model, design) {
    sqrt(solve(t(design) %*% (design * fitted(model) * (1 - fitted(model))))[1, 1])
  }
  smooth <- lowess(d$probability, d$label, iter = 0)
  error <- abs(d$probability - approx(smooth, xout = d$probability, ties = mean)$y)
  keep(set, "stats", list(
    citl = coef(large)[[1]], citl_se = standard_error(large, cbind(1 + 0 * logit)),
    cal_slope = coef(slope)[[2]], cal_slope_se = standard_error(slope, cbind(logit, 1)),
    e50 = quantile(error, 0.5, names = FALSE),
    scaled_brier = 1 - mean((d$probability - d$label)^2) / (mean(d$label) * (1 - mean(d$label)))
  ))
}

agreement <- function(set, d) {
  ccc <- epi.ccc(d$measured, d$predicted, ci = "z-transform", conf.level = 0.95)
  keep(set, "epiR", list(ccc = ccc$rho.c$est, ccc_ci_low = ccc$rho.c$lower, ccc_ci_high = ccc$rho.c$upper,
                         bias_correction = ccc$C.b))
  difference <- d$predicted - d$measured
  bias <- t.test(difference)
  pearson <- cor.test(d$measured, d$predicted)
  line <- lm(difference ~ I((d$predicted + d$measured) / 2))
  keep(set, "stats", list(
    bias = mean(difference), bias_ci_low = bias$conf.int[1], bias_ci_high = bias$conf.int[2], bias_sd = sd(difference),
    pearson = unname(pearson$estimate), pearson_ci_low = pearson$conf.int[1], pearson_ci_high = pearson$conf.int[2],
    spearman = cor(d$measured, d$predicted, method = "spearman"),
    bias_slope = coef(line)[[2]], bias_slope_p = summary(line)$coefficients[2, 4],
    bias_slope_ci_low = confint(line)[2, 1], bias_slope_ci_high = confint(line)[2, 2],
    bias_intercept_ci_low = confint(line)[1, 1], bias_residual_sd = sigma(line)
  ))
}

decisions <- function(set, d) {
  flag <- d$score_a >= median(d$score_a)
  other <- d$score_b >= median(d$score_b)
  cells <- matrix(c(sum(flag & d$label), sum(!flag & d$label), sum(flag & !d$label), sum(!flag & !d$label)), 2)
  tests <- epi.tests(as.table(cells), conf.level = 0.95)$detail
  found <- function(statistic, column) tests[tests$statistic == statistic, column]
  ratios <- list(lr_positive = found("lr.pos", "est"), lr_negative = found("lr.neg", "est"))
  # epiR prints 0 and infinity as limits where a cell is empty; we print none.
  if (all(cells[, ] > 0)) {
    ratios <- c(ratios, list(lr_positive_low = found("lr.pos", "lower"), lr_positive_high = found("lr.pos", "upper"),
                             lr_negative_low = found("lr.neg", "lower"), lr_negative_high = found("lr.neg", "upper")))
  }
  keep(set, "epiR", c(ratios, list(
    sensitivity = found("se", "est"), specificity = found("sp", "est"), ppv = found("pv.pos", "est"),
    npv = found("pv.neg", "est"), sensitivity_exact_low = found("se", "lower"),
    sensitivity_exact_high = found("se", "upper"), npv_exact_low = found("pv.neg", "lower"))))
  wilson <- suppressWarnings(prop.test(cells[1, 1], sum(cells[, 1]), correct = FALSE)$conf.int)
  pairs <- table(factor(flag, c(FALSE, TRUE)), factor(other, c(FALSE, TRUE)))
  keep(set, "stats", list(
    wilson_low = wilson[1], wilson_high = wilson[2],
    mcnemar_p = mcnemar.test(pairs, correct = FALSE)$p.value, mcnemar_corrected_p = mcnemar.test(pairs)$p.value,
    mcnemar_exact_p = binom.test(pairs[1, 2], pairs[1, 2] + pairs[2, 1])$p.value
  ))
}

groups <- function(set, d) {
  values <- split(d$measured, d$label)
  rank <- wilcox.test(values[["1"]], values[["0"]], exact = FALSE, correct = TRUE)
  counts <- table(d$label, d$measured > 17)
  pooled <- t.test(values[["1"]], values[["0"]], var.equal = TRUE)
  keep(set, "stats", list(
    t_pooled = unname(pooled$statistic), t_pooled_p = pooled$p.value,
    t_welch_p = t.test(values[["1"]], values[["0"]])$p.value,
    rank_sum_u = unname(rank$statistic), rank_sum_p = rank$p.value,
    chi_square_p = suppressWarnings(chisq.test(counts, correct = FALSE)$p.value),
    chi_square_yates_p = suppressWarnings(chisq.test(counts, correct = TRUE)$p.value), fisher_p = fisher.test(counts)$p.value
  ))
}

bootstrap <- function(set, d) {
  # Mean of a skewed variable. Kept: how many of 999 replicates lie below the estimate, and where the 90% BCa limits
  # then lie among the ordered replicates (as shares; boot.ci rounds ranks to two decimals).
  x <- exp(d$measured / 4)
  replicates <- boot(x, function(data, rows) mean(data[rows]), R = 999)
  limits <- boot.ci(replicates, conf = 0.9, type = "bca", L = x - mean(x))$bca
  keep(set, "boot", list(bca_below = sum(replicates$t < replicates$t0), bca_share_low = limits[2] / 1000,
                         bca_share_high = limits[3] / 1000))
}

set.seed(20231123)
# Base R from here on: definitions written another way (harmonic mean, correlation of flags, ranks, densities).
flags <- function(set, d) {
  flag <- d$score_a >= median(d$score_a)
  precision <- mean(d$label[flag])
  recall <- mean(flag[d$label == 1])
  cut <- sort(unique(d$score_a), decreasing = TRUE)
  tp <- sapply(cut, function(t) sum(d$label[d$score_a >= t]))
  flagged <- sapply(cut, function(t) sum(d$score_a >= t))
  keep(set, "stats", list(
    auprc = sum(diff(c(0, tp / sum(d$label))) * tp / flagged),
    f1 = 2 / (1 / precision + 1 / recall), mcc = suppressWarnings(cor(flag, d$label))
  ))
}

fit <- function(set, d) {
  bins <- findInterval(d$probability, quantile(d$probability, 1:9 / 10), left.open = TRUE)
  n <- tapply(d$label, bins, length)
  observed <- tapply(d$label, bins, sum)
  expected <- tapply(d$probability, bins, sum)
  statistic <- sum((observed - expected)^2 / (expected * (1 - expected / n)))
  keep(set, "stats", list(
    hosmer_lemeshow = statistic, hosmer_lemeshow_df = length(n),
    hosmer_lemeshow_p = pchisq(statistic, length(n), lower.tail = FALSE)
  ))
  threshold <- c(0.1, 0.3)
  benefit <- sapply(threshold, function(t) {
    treated <- d$probability >= t
    mean(treated & d$label == 1) - mean(treated & d$label == 0) * t / (1 - t)
  })
  everybody <- mean(d$label) - (1 - mean(d$label)) * threshold / (1 - threshold)
  keep(set, "stats", list(
    net_benefit_10 = benefit[1], net_benefit_30 = benefit[2], standardised_30 = benefit[2] / mean(d$label),
    treat_all_30 = everybody[2], avoided_30 = 100 * (benefit[2] - everybody[2]) / (0.3 / 0.7)
  ))
}

errors <- function(set, d) {
  difference <- d$predicted - d$measured
  n <- nrow(d)
  limit <- mean(difference) + c(-1, 1) * qnorm(0.975) * sd(difference)
  margin <- qt(0.975, n - 1) * sqrt(3 * var(difference) / n)
  sigma <- 1 + abs(d$predicted) / 20
  values <- split(d$measured, d$label)
  spread <- sqrt((var(values[["1"]]) + var(values[["0"]])) / 2)
  shares <- sapply(values, function(x) mean(x > 17))
  keep(set, "stats", list(
    mae = mean(abs(difference)), rmse = sqrt(mean(difference^2)),
    explained_variance = 1 - sum(difference^2) / sum((d$measured - mean(d$measured))^2),
    loa_low = limit[1], loa_low_ci_low = limit[1] - margin, loa_high = limit[2], loa_high_ci_high = limit[2] + margin,
    nll = -mean(dnorm(d$measured, d$predicted, sigma, log = TRUE)),
    coverage_90 = mean(abs(pnorm(d$measured, d$predicted, sigma) - 0.5) <= 0.45), sharpness = sqrt(mean(sigma^2)),
    smd_means = (mean(values[["1"]]) - mean(values[["0"]])) / spread,
    smd_shares = diff(shares)[[1]] / sqrt(mean(shares * (1 - shares)))
  ))
}

adjusted <- function(set, d) {
  values <- split(d$measured, d$label)
  p <- c(t.test(values[["1"]], values[["0"]], var.equal = TRUE)$p.value, t.test(d$predicted - d$measured)$p.value,
         wilcox.test(values[["1"]], values[["0"]], exact = FALSE, correct = TRUE)$p.value, NA)
  holm <- p.adjust(p, "holm")
  keep(set, "stats", list(holm_first = holm[1], holm_second = holm[2], holm_third = holm[3]))
}

sets <- lapply(seq_len(nrow(plan)), draw)
for (set in seq_along(sets)) {
  for (part in list(discrimination, calibration, agreement, decisions, groups, bootstrap,
                    flags, fit, errors, adjusted)) {
    suppressWarnings(part(set, sets[[set]]))
  }
}
data_file <- gzfile("sets_data.csv.gz", "w", compression = 9)
write.csv(do.call(rbind, sets), data_file, row.names = FALSE, quote = FALSE)
close(data_file)
write.csv(do.call(rbind, rows), "sets.csv", row.names = FALSE, quote = FALSE)
