<?php
session_start();
$user = $_SESSION['user']['id'] ?? null;

switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/login':
        session_regenerate_id(true);
        $_SESSION['user'] = ['id' => 'u-' . $_GET['name']];
        header('Location: /', true, 303);
        break;
    case '/logout':
        session_destroy();
        header('Location: /', true, 303);
        break;
    case '/api/me':
        header('Content-Type: application/json');
        if ($user === null) http_response_code(401);
        echo json_encode(['id' => $user]);
        break;
    default:
        echo 'hello, ' . ($user ?? 'stranger');
}
