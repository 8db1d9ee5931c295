//! The demo's model: which of three irises has these sepals and petals. Multinomial logistic regression, trained
//! on Fisher's data of 1936; docs/iris.md says how, and how to get these coefficients again.
//!
//! It is arithmetic and nothing else: no HTTP, no JSON, no rounding. Those belong to `replica`.

/// What the model says of one flower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The likeliest class: `setosa`, `versicolor` or `virginica`.
    pub class: &'static str,
    /// Its probability, from 1/3 to 1.
    pub probability: f64,
}

/// Classifies one flower by sepal length, sepal width, petal length and petal width, each in cm.
///
/// Any number is answered, also one no flower has; NaN alone has NaN for a probability.
pub fn classify(features: [f64; 4]) -> Prediction {
    let features = features.map(|cm| cm.clamp(-FARTHEST_CM, FARTHEST_CM));
    let scores = CLASSES.map(|class| (class.name, class.score(&features)));
    let [first, others @ ..] = scores;
    let (class, best) = others.into_iter().fold(first, |best, other| if other.1 > best.1 { other } else { best });
    // Softmax, every score less the best one: the same quotient, and `exp` cannot overflow.
    let total: f64 = scores.iter().map(|(_, score)| (score - best).exp()).sum();
    Prediction { class, probability: 1.0 / total }
}

/// Beyond this every probability is 0 or 1 anyway; the bound keeps scores finite, their differences defined.
const FARTHEST_CM: f64 = 1e6;

struct Class {
    name: &'static str,
    intercept: f64,
    coefficients: [f64; 4],
}

impl Class {
    fn score(&self, features: &[f64; 4]) -> f64 {
        self.coefficients.iter().zip(features).fold(self.intercept, |sum, (weight, cm)| sum + weight * cm)
    }
}

/// As scikit-learn 1.9.1 prints them (docs/iris.md).
const CLASSES: [Class; 3] = [
    Class {
        name: "setosa",
        intercept: 9.849568050470829,
        coefficients: [-0.42350992012137084, 0.967350579572073, -2.5171523776072964, -1.07933664850014],
    },
    Class {
        name: "versicolor",
        intercept: 2.2372056322101557,
        coefficients: [0.5344615089952168, -0.3215878551922398, -0.20639207129601753, -0.9442984653966183],
    },
    Class {
        name: "virginica",
        intercept: -12.086773682680985,
        coefficients: [-0.11095158887383838, -0.6457627243798311, 2.72354444890331, 2.023635113896759],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows 1 to 5, 51 to 55 and 101 to 105 of the data, with the probability scikit-learn gives the true class.
    const FLOWERS: [([f64; 4], &str, f64); 15] = [
        ([5.1, 3.5, 1.4, 0.2], "setosa", 0.981583495),
        ([4.9, 3.0, 1.4, 0.2], "setosa", 0.971336394),
        ([4.7, 3.2, 1.3, 0.2], "setosa", 0.985276868),
        ([4.6, 3.1, 1.5, 0.2], "setosa", 0.976066539),
        ([5.0, 3.6, 1.4, 0.2], "setosa", 0.985234856),
        ([7.0, 3.2, 4.7, 1.4], "versicolor", 0.873956688),
        ([6.4, 3.2, 4.5, 1.5], "versicolor", 0.859721857),
        ([6.9, 3.1, 4.9, 1.5], "versicolor", 0.725082861),
        ([5.5, 2.3, 4.0, 1.3], "versicolor", 0.939697364),
        ([6.5, 2.8, 4.6, 1.5], "versicolor", 0.815220656),
        ([6.3, 3.3, 6.0, 2.5], "virginica", 0.996086347),
        ([5.8, 2.7, 5.1, 1.9], "virginica", 0.837209206),
        ([7.1, 3.0, 5.9, 2.1], "virginica", 0.974425491),
        ([6.3, 2.9, 5.6, 1.8], "virginica", 0.918291240),
        ([6.5, 3.0, 5.8, 2.2], "virginica", 0.982556352),
    ];

    #[test]
    fn known_flowers_get_their_class_and_the_probability_scikit_learn_gives() {
        for (features, class, probability) in FLOWERS {
            let prediction = classify(features);
            assert_eq!(prediction.class, class, "{features:?}");
            assert!((prediction.probability - probability).abs() < 1e-8, "{features:?}: {prediction:?}");
        }
    }

    /// Row 71, one of the four of 150 the model gets wrong: a copy that got it right would be another model.
    #[test]
    fn the_flower_it_is_known_to_get_wrong_is_still_wrong() {
        let prediction = classify([5.9, 3.2, 4.8, 1.8]);
        assert_eq!(prediction.class, "virginica", "it is a versicolor");
        assert!((prediction.probability - 0.557609184).abs() < 1e-8, "{prediction:?}");
    }

    #[test]
    fn numbers_no_flower_has_still_give_a_probability() {
        for cm in [0.0, -1.0, 1e9, f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY] {
            let Prediction { probability, .. } = classify([cm; 4]);
            assert!((1.0 / 3.0..=1.0).contains(&probability), "{cm}: {probability}");
        }
        assert!(classify([f64::NAN; 4]).probability.is_nan());
    }
}
